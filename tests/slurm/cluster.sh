#!/bin/bash
# A throwaway Slurm of two fake nodes on this machine: Debian's slurm-wlm and munge, no systemd, no cgroups.
#   cluster.sh install          as root, with apt-get, what of it is absent
#   cluster.sh start FOLDER     prints the line to evaluate (SLURM_CONF); status 3 and the reason where it cannot be
#   cluster.sh stop FOLDER
set -euo pipefail
action=$1 base=$(realpath -m "${2:-/tmp/slurm}") host=$(hostname -s) cores=$(nproc --all)

PROGRAMS="munged slurmctld slurmd sbatch"
PATH=$PATH:/usr/sbin:/sbin

cannot() { echo "no Slurm here: $1" >&2; exit 3; }

if [ "$action" = install ]; then
  # shellcheck disable=SC2086
  [ "$(command -v $PROGRAMS | wc -l)" = 4 ] && exit 0
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || cannot "slurm-wlm and munge are absent, and only root with apt-get can add them"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends slurm-wlm munge >/dev/null
  exit 0
fi

if [ "$action" = stop ]; then
  for file in "$base"/slurmd-n2.pid "$base"/slurmd-n1.pid "$base"/slurmctld.pid "$base"/munge/munged.pid; do
    [ ! -s "$file" ] || kill "$(cat "$file")" 2>/dev/null || true
  done
  exit 0
fi

for program in $PROGRAMS; do
  command -v "$program" >/dev/null || cannot "no $program; apt-get install -y --no-install-recommends slurm-wlm munge"
done
[ "$(id -u)" = 0 ] || cannot "its daemons want to be started by root"

mkdir -p "$base"/{state,spool-n1,spool-n2,log,dev,munge}
chmod 755 "$base"
chmod 700 "$base/munge"
for i in 0 1; do # device nodes, else CUDA_VISIBLE_DEVICES stays empty
  mknod "$base/dev/nvidia$i" c 1 3 || cannot "no device node can be made"
done
cat > "$base/slurm.conf" <<END
ClusterName=lab
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$base/munge.sock,cred_expire=5
SlurmctldPort=26817
StateSaveLocation=$base/state
SlurmdSpoolDir=$base/spool-%n
SlurmctldPidFile=$base/slurmctld.pid
SlurmdPidFile=$base/slurmd-%n.pid
SlurmctldLogFile=$base/log/slurmctld.log
SlurmdLogFile=$base/log/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=5,bf_interval=5
ReturnToService=2
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName=n1 NodeHostname=$host NodeAddr=127.0.0.1 Port=26818 CPUs=$cores Boards=1 SocketsPerBoard=1 CoresPerSocket=$cores ThreadsPerCore=1 RealMemory=2000 Gres=gpu:2 State=UNKNOWN
NodeName=n2 NodeHostname=$host NodeAddr=127.0.0.1 Port=26819 CPUs=$cores Boards=1 SocketsPerBoard=1 CoresPerSocket=$cores ThreadsPerCore=1 RealMemory=2000 Gres=gpu:2 State=UNKNOWN
PartitionName=gpu Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
END
cat > "$base/gres.conf" <<END
AutoDetect=off
NodeName=n1,n2 Name=gpu File=$base/dev/nvidia[0-1]
END
cat > "$base/cgroup.conf" <<END
CgroupPlugin=cgroup/v1
ConstrainCores=no
ConstrainDevices=no
ConstrainRAMSpace=no
END
dd if=/dev/urandom of="$base/munge/munge.key" bs=1 count=1024 2>/dev/null
chmod 400 "$base/munge/munge.key"
munged --force --key-file="$base/munge/munge.key" --socket="$base/munge.sock" --pid-file="$base/munge/munged.pid" \
  --log-file="$base/munge/munged.log" --seed-file="$base/munge/seed" >&2 || cannot "munged does not start"
export SLURM_CONF=$base/slurm.conf
slurmctld -c >&2 || cannot "slurmctld does not start"
slurmd -N n1 >&2 && slurmd -N n2 >&2 || cannot "slurmd does not start"
for _ in $(seq 100); do
  [ "$(sinfo -h -N -t idle -o %N 2>/dev/null | sort -u | wc -l)" = 2 ] && { echo "SLURM_CONF=$SLURM_CONF"; exit 0; }
  sleep 0.2
done
cannot "its nodes stay $(sinfo -h -o %T 2>&1 | sort -u | tr '\n' ' ')(logs in $base/log)"
