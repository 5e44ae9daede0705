"""Runs a program in a pseudo-terminal of so many columns and prints what a person would see.

Usage: terminal.py COLUMNS PROGRAM ARGUMENT...
"""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios

columns = int(sys.argv[1])
ours, theirs = pty.openpty()
fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
# Nobody types: whatever is asked, the input is at its end.
modes = termios.tcgetattr(theirs)
modes[3] &= ~termios.ECHO
termios.tcsetattr(theirs, termios.TCSANOW, modes)
os.write(ours, modes[6][termios.VEOF] * 8)
program = subprocess.Popen(
    sys.argv[2:],
    stdin=theirs,
    stdout=theirs,
    stderr=theirs,
    start_new_session=True,
    preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
)
os.close(theirs)
while True:
    try:
        seen = os.read(ours, 65536)
    except OSError:
        break
    if not seen:
        break
    sys.stdout.buffer.write(seen)
sys.exit(program.wait())
