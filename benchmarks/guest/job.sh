# What the guest does: swap as the row wants it, then the load. The row is in row.env, see rows.py.
cd /job
. ./row.env
export PYTHONPATH=/job/packages PYTHONDONTWRITEBYTECODE=1
tmemfs() { python3 -m tmemfs "$@"; }
fail() { echo "end failed: $*"; exit 1; }

for setting in $SYSCTLS; do sysctl -qw "$setting" || fail "$setting"; done

mkdir /disk
case $OVERFLOW in
none) options= ;;
file) mkfs.ext4 -q /dev/vdc && mount /dev/vdc /disk || fail ext4; options='--overflow /disk/overflow' ;;
device) options='--overflow /dev/vdc' ;;
esac

tmemfs swapon guest --size "$SIZE" --budget "$BUDGET" $options $OPTIONS || fail swapon
daemon=$(sed -n 's/.*"pid": *\([0-9]*\).*/\1/p' /run/tmemfs/guest/.tmemfs/status.json | head -1)
group=/sys/fs/cgroup/load
echo +memory >/sys/fs/cgroup/cgroup.subtree_control
mkdir $group; echo "$CGROUP" >$group/memory.max
echo 3 >/proc/sys/vm/drop_caches
free -m
dmesg -n 7 # what it says of a hung task, or of the stacks of all, is to be on the console
# What swaps is this program, and, with no limit for it, whoever else there is.
echo $$ >$group/cgroup.procs
exec ./load "$LOAD" "$RANDOM_PERCENT" "$SECONDS_LIMIT" "$STALL" "$daemon"
