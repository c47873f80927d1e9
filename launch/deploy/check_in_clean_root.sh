#!/usr/bin/env bash
# Builds the Dockerfile's target `cpu` and runs the demo in it, where there is no Docker engine and
# perhaps no registry: on a minimal Debian, made here, in place of the Python image.
#
#   launch/deploy/check_in_clean_root.sh WORK_FOLDER [BUILDAH_BUILD_OPTION …]
#
# Needs root, buildah, mmdebstrap, about 12 GB in WORK_FOLDER, and an apt and a pip that find their
# packages; further options go to `buildah build`, such as --secret id=pip_config,src=/etc/pip.conf.
# The user of the image is kept, and so are its environment, volumes' folders, health check,
# entrypoint and command; limits that only a container runtime sets (capabilities, shm_size) are not.
set -euo pipefail

work=$(realpath -m "${1:?the folder to work in}")
shift
source_folder=$(realpath "$(dirname "${BASH_SOURCE[0]}")/../..")
image=localhost/hybridserve-llm:cpu
mkdir -p "$work"
build() { buildah --root "$work/storage" --runroot "$work/run" --storage-driver overlay "$@"; }

if ! build inspect --type image localhost/clean-root >/dev/null 2>&1; then
  # What the Python image has and the Dockerfile uses: Python 3.11 as `python`, venv, certificates.
  mmdebstrap --quiet --variant=minbase \
    --include=python3,python3-venv,python-is-python3,ca-certificates bookworm "$work/root.tar"
  container=$(build from scratch)
  build add --quiet "$container" "$work/root.tar" / >/dev/null
  build commit --quiet "$container" localhost/clean-root >/dev/null
  build rm "$container" >/dev/null
fi
build build --isolation chroot --network host --layers --pull=never --target cpu --tag "$image" \
  --build-arg PYTHON_IMAGE=localhost/clean-root "$@" "$source_folder"

container=$(build from --pull=never "$image")
trap 'build rm "$container" >/dev/null' EXIT
# buildah run starts no entrypoint, so its words are read from the image; the health check is the
# Dockerfile's too, since OCI images cannot hold one.
inside() { build run --isolation chroot --network host "$container" -- "$@"; }
mapfile -t start < <(build inspect --type image --format \
  '{{range .OCIv1.Config.Entrypoint}}{{println .}}{{end}}{{range .OCIv1.Config.Cmd}}{{println .}}{{end}}' \
  "$image" | sed '/^$/d')
health=$(sed -n "s/^  \"\(import http.client.*\)\"\]$/\1/p" "$source_folder/Dockerfile")

echo "== compilers in the image (none is right):"
inside sh -c 'for name in cc gcc g++ clang; do command -v $name || true; done'
echo "== as: $(inside id)"
echo "== ${start[*]}"
inside "${start[@]}" &
launcher=$!
until inside python -c "$health" 2>/dev/null; do
  kill -0 "$launcher" # the launch failed: its message is above
  sleep 2
done
echo "== the health check passes"
inside hs-launch status --run-folder /var/lib/hybridserve/run
inside python -c '
import json
import urllib.request

body = {"model": "hybridserve", "messages": [{"role": "user", "content": "What is 47 * 6?"}],
        "temperature": 0}
request = urllib.request.Request("http://127.0.0.1:8000/v1/chat/completions",
    json.dumps(body).encode(), {"Content-Type": "application/json"})
answer = json.load(urllib.request.urlopen(request))
print("== an answer:", answer["choices"][0]["message"]["content"], "from", answer["model"])'
inside hs-launch stop --run-folder /var/lib/hybridserve/run
wait "$launcher"
echo "== stopped in order"
if inside python -c "$health" 2>/dev/null; then
  echo "the health check still passes" >&2
  exit 1
fi
