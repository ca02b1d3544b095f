"""``python -m tenmeg`` is the command ``tenmeg``."""

from compressor.cli import main

if __name__ == "__main__":
    main(prog_name="tenmeg")
