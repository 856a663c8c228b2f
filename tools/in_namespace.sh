#!/bin/sh
# In the place of ssh, for `rubato launch --ssh`: runs the line $2 in the network namespace $1 of this machine. Nothing stays between
# the launcher and what the line executes: signals and the exit code are those of the process itself.
exec ip netns exec "$1" sh -c "$2"
