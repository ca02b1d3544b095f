"""The golden packages, which every later reader must open, and the script that makes them."""
