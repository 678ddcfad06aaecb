"""What the models of a file believe before its first Gaussian, learnt from files of photographs.

A letter is a logarithm of odds: the i-th of ODDS stands for 2^((i - 32) / 4) to 1. One table serves all numbers of
a file, since their models go by how large a number is expected to be in units of its own step. They were counted in
files of odd-numbered Kodak photographs, and checked with each photograph's own files left out (docs/decisions.md).
"""

from gaussjax.gjx import grids

ODDS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ+-"
SEEN = 24  # bits that a model counts as having seen

# In the order of contexts.LAYOUT.
GAP = (
  "Fzvqqrqqqqqqqqqqqqqq"
  "GCzvtqxwvzwwqqqqqqqq"
  "JFCyvtrwvpBtCCqqqqqq"
  "MJFCyvttvuAuytqqqqqq"
  "PMIFBywtuuyyywtCCqqq"
  "RQLHFAyvtwxvsHznnnnn"
  "TPNLGFByvvurJwwqqqqq"
  "TTRJJGDAxtquFwCCqqqq"
  "QZOZMKEBzuqFwCCqqqqq"
  "LLLLLLDKCBtCqqqqqqqq"
  "FwCCCCCCCCqqqqqqqqqq"
  "wwwwwwwwwwwwwwwwwwww"
  "wwwwwwwwwwwwwwwwwwww"
  "wwwwwwwwwwwwwwwwwwww"
  "wwwwwwwwwwwwwwwwwwww"
  "wwwwwwwwwwwwwwwwwwww"
)
MANTISSA = "wwuuttssrsrpmnhjCqqqqqqqqqqqqqqqq"
TURN = "wvrArvwA"
# Of a number.
ZERO = "hqosqttvwxyzCCFGIIKKwwww"
SIGN = "QGt6NEqdLCqgHArkDytoAxvryxwv"
SIDE_AND_LEAST = "xye"
SMALL = (
  "eqvrqqqqqqqqqqqqqqqq"
  "emwnnnnnnnnnnnnnnnnn"
  "hqqrnnnnnnnnnnnnnnnn"
  "lqsryznnnnnnnnnnnnnn"
  "psuwwxvuFFwCCqqqqqqq"
  "sutxxvvtHtCCCCCCqqqq"
  "wwwxyAzAzBFBAFMBKKKK"
  "AzyyyBCCCCCDGGDEHMEH"
  "DCAAABCBDDDEFDEHFIGF"
  "GFDCCCDCDDEEEFEGFGHH"
  "wwwwwwwwwwwwwwwwwwww"
  "wwwwwwwwwwwwwwwwwwww"
)
SIDES = (
  "wwwwwwwwwwwwwwwwwwww"
  "wwwwwwwwwwwwwwwwwwww"
  "wwwwwwwwwwwwwwwwwwww"
  "wwwwwwwwwwwwwwwwwwww"
  "wwwwwwwwwwwwwwwwwwww"
  "wwwwwwwwwwwwwwwwwwww"
  "wwwwwwwwwwwwwwwwwwww"
  "FFFFFFFFwCCCqqqqqqqq"
  "FFEFGBACByzJBHHzFFFF"
  "IGGEFEEDDFBEFDDEKEFE"
  "CBAAAzAABBBAACCCDHEF"
  "DDCCBBBBBBACBDGFzDJE"
  "wwwwwwwwwwwwwwwwwwww"
  "wwwwwwwwwwwwwwwwwwww"
  "wwwwwwwwwwwwwwwwwwww"
  "wwwwwwwwwwwwwwwwwwww"
  "wwwwwwwwwwwwwwwwwwww"
  "wwwwwwwwwwwwwwwwwwww"
  "wwwwwwwwwwwwwwwwwwww"
  "CCCCCCCCCCCCCCCCqqqq"
  "EEEDDGCBOBzCwFFFFFFF"
  "HFFDCCCABCBDCBHBFKAH"
  "DBzyywwxyzzyyEHCrwCC"
  "GECBAAzzzyzyAyCCCHCx"
)


def probabilities(numbers: int) -> list[int]:
  """Of the models of a file whose Gaussians have so many `numbers`, in 1 / 2^16."""
  table = [(1 << 32) // ((1 << 16) + grids.power(2 * (32 - letter))) for letter in range(len(ODDS))]
  letters = GAP + MANTISSA + TURN + (ZERO + SIGN + SIDE_AND_LEAST + SMALL + SIDES) * numbers
  return [table[ODDS.index(letter)] for letter in letters]
