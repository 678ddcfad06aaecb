"""Sets of Gaussians for other tools and from other projects; docs/exchange.md says what is lost on the way."""
