"""Print one of the README's two commands: 0, the demo, or 1, the tests."""

import pathlib
import re
import sys

text = (pathlib.Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
blocks = re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
print(blocks[int(sys.argv[1])].strip())
