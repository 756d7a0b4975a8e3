"""`python -m everturn.testing -- COMMAND`: runs a command beside an S3 server on loopback."""

import sys

from everturn.testing.s3 import main

sys.exit(main(sys.argv[1:]))
