"""`python -m gaussjax.cli`."""

from gaussjax.cli.process import main

if __name__ == "__main__":
  main()
