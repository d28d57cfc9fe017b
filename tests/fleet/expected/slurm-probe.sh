#!/bin/bash
#SBATCH --job-name=tuner-probe-lr@1
#SBATCH --output=/home/ada/.tuner/fleet/lr@1-0a1b/probe-%j.log
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

export TUNER_DATABASE_PASSWORD_FILE=/home/ada/.tuner/fleet/lr@1-0a1b/password
export TUNER_DATABASE_URL=postgresql://ada@db.lab/tuner
export TUNER_HOME=/home/ada/.tuner
module load cuda/12.4
answer=/home/ada/.tuner/fleet/lr@1-0a1b/probe-$SLURM_JOB_ID.json
apptainer exec --nv tuner.sif tuner worker lr@1 --device auto --probe --json >"$answer.part"
mv "$answer.part" "$answer"
