"""``python -m basicsr_ext`` is the command ``basicsr``."""

import sys

from basicsr_ext.cli.main import main

sys.exit(main())
