import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # for problems.py and parts.py, from every folder of tests
