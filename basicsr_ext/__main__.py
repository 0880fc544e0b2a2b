"""``python -m basicsr_ext`` is the command ``basicsr``."""

import sys

from basicsr_ext.cli.main import main

status = main()
if 'basicsr_ext.distributed' in sys.modules:  # which needs torch
    from basicsr_ext.distributed import end_process

    end_process(status)
sys.exit(status)
