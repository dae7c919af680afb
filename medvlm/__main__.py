"""`python -m medvlm` is the same as the command `medvlm`."""

from medvlm.cli import main

if __name__ == "__main__":
    main()
