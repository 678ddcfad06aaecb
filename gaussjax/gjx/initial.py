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
  "Hzyrvpqqqqqqqqqqqqqq"
  "IFBxuquuuzwwqqqqqqqq"
  "LHEAxtuutuztDAqqqqqq"
  "MJHDAwtsuutwyvpqqqqq"
  "OLKGDzwuutvyuwvACqqq"
  "QPMKHEAxvuxvxBuqqmnn"
  "VVQMKFCAwvtzBsvpqqqq"
  "VWOOMHFBywvwxsByqqqq"
  "X-TUQLHEAwuxvxEoqqqq"
  "TTRRTIGHBvrzuoqqqqqq"
  "HyEEEEEEEyqqqqqqqqqq"
  "wwwwwwwwwwwwwwwwwwww"
  "wwwwwwwwwwwwwwwwwwww"
  "wwwwwwwwwwwwwwwwwwww"
  "wwwwwwwwwwwwwwwwwwww"
  "wwwwwwwwwwwwwwwwwwww"
)
MANTISSA = "wwvwuvuutsrqlicgCpqqqqqqqqqqqqqqq"
TURN = "wwszrxvA"
# Of a number.
ZERO = "lrnsqttvvxyzBCFFIIKJwwww"
SIGN = "OEw0KDthLDrjGzslCzvoBxvrxxwv"
SIDE_AND_LEAST = "xz9"
SMALL = (
  "istuvtuoqqqqqqqqqqqq"
  "insqqqmnnnnnnnnnnnnn"
  "jrqttlnnnnnnnnnnnnnn"
  "msvtyvmnnnnnnnnnnnnn"
  "psuuwwvtGGvCCqqqqqqq"
  "suuwvywxBwEEEEEEuoqq"
  "xxyAyBzCCACCAGEFNEDL"
  "AABBABBCCFBFEEEDEELO"
  "DCCBACBBCDCBECEEDCEE"
  "FEDDCCCCBCCCEEDEEDGF"
  "wwwwwwwwwwwwwwwwwwww"
  "wwwwwwwwwwwwwwwwwwww"
)
SIDES = (
  "wwwwwwwwwwwwwwwwwwww"
  "wwwwwwwwwwwwwwwwwwww"
  "wwwwwwwwwwwwwwwwwwww"
  "wwwwwwwwwwwwwwwwwwww"
  "yyyyyuwwwwwwwwwwwwww"
  "wwwwwwwwwwwwwwwwwwww"
  "wwwwwwwwwwwwwwwwwwww"
  "IIIFIBHHwDDDpqqqqqqq"
  "CFHDCDCBzAAGAIIAGGCF"
  "GIEGHFEDDCCEDECFHKFJ"
  "ABAzzyzzzxyByDyAFCFG"
  "CCCBAzzyBABBBEBBGGJE"
  "wwwwwwwwwwwwwwwwwwww"
  "wwwwwwwwwwwwwwwwwwww"
  "wwwwwwwwwwwwwwwwwwww"
  "wwwwwwwwwwwwwwwwwwww"
  "wwwwwwwwwwwwwwwwwwww"
  "wwwwwwwwwwwwwwwwwwww"
  "yyyyyyyyyyuwwwwwwwww"
  "GDHHDHHHHACEEEEBuuuu"
  "HHLFFDHJGCEFzJGJJJDI"
  "IGFDCCCBCDAByCECLHDH"
  "CAyxxxxxyxzzzCLAvzEE"
  "FDBAzzyzyAzAByDBICBB"
)


def probabilities(numbers: int) -> list[int]:
  """Of the models of a file whose Gaussians have so many `numbers`, in 1 / 2^16."""
  table = [(1 << 32) // ((1 << 16) + grids.power(2 * (32 - letter))) for letter in range(len(ODDS))]
  letters = GAP + MANTISSA + TURN + (ZERO + SIGN + SIDE_AND_LEAST + SMALL + SIDES) * numbers
  return [table[ODDS.index(letter)] for letter in letters]
