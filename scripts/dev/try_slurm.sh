#!/usr/bin/env bash
# Shows on a real SLURM, made from nothing on this machine, that a sweep survives a job's requeueing bit for bit.
# Needs root and: apt-get install slurm-wlm munge; pip install -e .[slurm]. Two to five minutes.
#   sudo PYTHON=.venv/bin/python scripts/dev/try_slurm.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
PYTHON=$(realpath -s "${PYTHON:-.venv/bin/python}")
for program in munged slurmctld slurmd; do
    [ -x "/usr/sbin/$program" ] || { echo "skipped: no $program; apt-get install slurm-wlm munge"; exit 0; }
done
"$PYTHON" -c 'import hydra_plugins.hydra_submitit_launcher' 2> /dev/null \
    || { echo "skipped: no submitit; pip install -e .[slurm]"; exit 0; }
[ "$(id -u)" = 0 ] || { echo "skipped: slurmd needs root"; exit 0; }

dir=$(mktemp -d /tmp/try_slurm.XXXXXX)
pids=()
cleanup() { kill "${pids[@]}" 2> /dev/null || true; }
trap cleanup EXIT
within() {  # SECONDS CONDITION: wait for it
    for _ in $(seq $((5 * $1))); do
        if eval "$2"; then return; fi
        sleep 0.2
    done
    return 1
}
host=$(hostname -s)
mkdir "$dir/state" "$dir/spool"
dd if=/dev/urandom of="$dir/munge.key" bs=1024 count=1 status=none
chmod 600 "$dir/munge.key"
cat > "$dir/slurm.conf" << END
ClusterName=try
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
AuthInfo=socket=$dir/munge.socket
SlurmctldPort=16817
SlurmdPort=16818
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MailProg=/bin/true
KillWait=5
NodeName=$host NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=try Nodes=ALL Default=YES MaxTime=INFINITE State=UP
END
export SLURM_CONF=$dir/slurm.conf
munged --foreground --force --socket="$dir/munge.socket" --key-file="$dir/munge.key" --pid-file="$dir/munged.pid" \
    --log-file="$dir/munged.log" --seed-file="$dir/munged.seed" 2> /dev/null & pids+=($!)
within 60 '[ -S "$dir/munge.socket" ]' || { echo "skipped: munged does not start here"; cat "$dir/munged.log"; exit 0; }
slurmctld -D 2> /dev/null & pids+=($!)
slurmd -D 2> /dev/null & pids+=($!)
within 60 'sinfo --noheader 2> /dev/null | grep -q idle' \
    || { echo "skipped: slurmd does not start here"; tail -n 5 "$dir"/slurm*.log; exit 0; }
sinfo

settings=(model=simple,wide training=standard,fgsm,pgd recipe.steps=300 recipe.evaluations=30 recipe.monitor.steps=2
    runtime.threads=1 runtime.device=cpu)
"$PYTHON" train.py -m hydra/launcher=slurm hydra.launcher.cpus_per_task=1 hydra.launcher.timeout_min=30 \
    "${settings[@]}" output_dir="$dir/slurm" & sweep=$!
# A wide network in the middle of its training, and its job of the six.
within 600 'ls "$dir"/slurm/*/wide-*/*/state.pt > "$dir/found" 2> /dev/null' || { echo "error: no training began"; exit 1; }
victim=$(head -n 1 "$dir/found")
case $victim in *-standard*) job=3 ;; *-fgsm*) job=4 ;; *) job=5 ;; esac
running=$(squeue --noheader --array --states=R --format=%i | grep "_$job\$") || { echo "error: job $job does not run"; squeue; exit 1; }
squeue
echo "requeueing $running while it trains $(dirname "$victim")"
scontrol requeue "$running"
sleep 8
scontrol update jobid="$running" StartTime=now  # not after SLURM's two minutes of grace
wait "$sweep"
"$PYTHON" train.py -m "${settings[@]}" logger=none output_dir="$dir/undisturbed"
squeue
count=0
while read -r file; do
    cmp "$dir/slurm/$file" "$dir/undisturbed/$file"
    count=$((count + 1))
done < <(cd "$dir/undisturbed" && find . -name '*.safetensors' -o -name history.csv)
grep -rl "resuming at step" "$dir/slurm/.sweep" || { echo "error: no job resumed from a state"; exit 1; }
echo "$count files of 6 networks are the same, bit for bit"
