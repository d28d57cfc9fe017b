#!/bin/bash
#SBATCH --job-name=tuner-lr@1
#SBATCH --output=/home/ada/.tuner/fleet/lr@1-0a1b/%A_%a.log
#SBATCH --open-mode=append
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=4
#SBATCH --time=180
#SBATCH --partition=gpu
#SBATCH --account=lab
#SBATCH --constraint=a100|h100
#SBATCH --gres=gpu:a100:1
#SBATCH --mem=16G
#SBATCH --exclude=n[3-4]
#SBATCH "--comment=a study of rates"
#SBATCH --requeue
#SBATCH --signal=B:USR2@120

export TUNER_DATABASE_PASSWORD_FILE=/home/ada/.tuner/fleet/lr@1-0a1b/password
export TUNER_DATABASE_URL=postgresql://ada@db.lab/tuner
export TUNER_GIVE_BACK_SECONDS=105
export TUNER_HOME=/home/ada/.tuner
module load cuda/12.4

# The lines above are the site's; below, commands may fail and the script goes on.
set +eu
worker='' asked='' interrupted=''
# Not SLURM_JOB_ID: the last element to start has the array's own, which means all elements.
element="${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"

leave() {
    interrupted=1
    [ -z "$worker" ] || kill -s "$1" "$worker" 2>/dev/null
}
# The time limit is near: there is time to finish the epoch. Bash lets background jobs ignore INT,
# so the worker gets TERM for everything.
trap 'asked=${asked:-requeue}; leave TERM' USR2
# Slurm takes the place away and kills soon: a second request does not wait for the epoch.
trap 'asked=${asked:-requeue}; leave TERM; (sleep 15; leave HUP) &' TERM
# `tuner fleet stop` and `scale`: politely by INT, at once by USR1, which the worker hears as two.
trap 'asked=stop; leave TERM' INT
trap 'asked=stop; leave TERM; leave HUP' USR1

requeue() {
    # Someone may have cancelled this element meanwhile, who does not want it back.
    if [ "$(squeue --noheader --jobs="$element" --format=%T)" = RUNNING ]; then
        echo "Requeued: $1."
        scontrol requeue "$element" || exit 75
        exit 0
    fi
}

if [ -z "$asked" ]; then
    apptainer exec --nv tuner.sif tuner worker lr@1 --device auto --lifetime 10620s --place lr@1-0a1b/"$element" &
    worker=$!
    # A signal between the test and the line above found no worker to pass it on to.
    [ -z "$asked" ] || kill -s TERM "$worker"
fi
code=''
while [ -z "$code" ]; do
    interrupted=''
    wait $worker
    code=$?
    # A trapped signal ends `wait` early; the worker's own code is still to come.
    [ -z "$interrupted" ] || code=''
done

finish() {
    # The last element of the fleet removes the password. Of those that end together the first by
    # number stays a moment for the others; where that is not enough, `tuner` does it later.
    local jobs others first
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        jobs=$(paste -sd, /home/ada/.tuner/fleet/lr@1-0a1b/jobs-lab) || return
        # A Slurm that does not answer has said nothing about the others.
        others=$(squeue --noheader --array --jobs="$jobs" --states=PD,R,S,CG,CF,RS,SI,SO,ST,RQ,RH,RD,RF,SE --format='%F_%K %t') ||
            return
        if [ "${others% *}" = "$element" ]; then
            rm -f /home/ada/.tuner/fleet/lr@1-0a1b/password
            return
        fi
        # One that is completing ends for good, or was preempted and comes back: it may hold up the
        # removal, but leaves it to us.
        first=$(grep -v ' CG$' <<<"$others" | sort -t_ -k1,1n -k2,2n | head -n 1)
        [ "${first% *}" = "$element" ] || return
        sleep 1
    done
}

[ "$asked" != stop ] || { finish; exit 0; }
[ "$asked" != requeue ] || requeue 'its place was taken or its time is over'
case $code in
0) # A worker ends when its study has ended, or at the end of its lifetime.
    [ $SECONDS -lt 10620 ] || requeue 'its lifetime is over'
    finish ;;
1 | 2 | 3) finish ;; # It said why; the next one would meet the same.
70) ;; # A fault of ours: `tuner` tries a few times.
*) # Killed or crashed. Those that die young are left to `tuner`, which gives up after a few.
    [ $SECONDS -lt 20 ] || requeue "its worker died with code $code" ;;
esac
exit $code
