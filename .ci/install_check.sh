#!/usr/bin/env bash
# From the wheel to the first report, with an empty HOME and, after the installation, no network.
#   .ci/install_check.sh WHEEL PYTHON [EXTRA] [pip|uv|pipx] [USER]
# The command runs in a folder, and with a PYTHONPATH, that hold packages called results, engines, tests.
# EXTRA: "" (the probe of the machine), demo or all (a training on the demo's data). USER: an account without rights;
# it is made, and removed afterwards, by root. Prints seconds and sizes.
set -euo pipefail
wheel=$(realpath "$1"); python=$2; extra=${3:-}; installer=${4:-pip}; user=${5:-}
root=$(cd "$(dirname "$0")/.." && pwd)
home=$(mktemp -d /var/tmp/workbench-install-XXXXXX)
cp "$wheel" "$root/requirements.lock" "$home"
wheel=$home/$(basename "$wheel")
as=(env -i HOME="$home" PATH="$home/venv/bin:$home/.local/bin:/usr/bin:/bin" LANG=C.UTF-8
    PIP_CONFIG_FILE="${PIP_CONFIG_FILE:-}" PIP_CERT="${PIP_CERT:-}" PIP_FIND_LINKS="${PIP_FIND_LINKS:-}"
    SSL_CERT_FILE="${SSL_CERT_FILE:-${PIP_CERT:-}}" UV_SYSTEM_CERTS=1 UV_FIND_LINKS="${PIP_FIND_LINKS:-}")
offline=(unshare --net)
if [ -n "$user" ]; then
    useradd --no-create-home --home-dir "$home" "$user"
    chown -R "$user" "$home"
    as=(runuser -u "$user" -- "${as[@]}")
    trap 'userdel "$user"; rm -rf "$home"' EXIT
else
    trap 'rm -rf "$home"' EXIT
fi
cd "$home"
clock() { local start=$SECONDS; "${@:2}"; echo "$1: $((SECONDS - start)) s"; }
target=$wheel${extra:+[$extra]}
install() {
    case $installer in
    pip) "${as[@]}" "$python" -m venv venv
         "${as[@]}" venv/bin/python -m pip install -q -c requirements.lock "$target" ;;
    uv) "${as[@]}" "$python" -m venv tool && "${as[@]}" tool/bin/pip install -q uv
        "${as[@]}" tool/bin/uv venv -q --python "$python" venv
        "${as[@]}" tool/bin/uv pip install -q --python venv/bin/python -c requirements.lock "$target" ;;
    pipx) "${as[@]}" "$python" -m venv tool && "${as[@]}" tool/bin/pip install -q pipx
          "${as[@]}" tool/bin/pipx install -q --python "$python" "$target" \
              --pip-args="-q -c $home/requirements.lock" ;;
    esac
}
clock "install ($installer, ${extra:-no extra}, $("$python" --version))" install
echo "size: $(du -sh --exclude=tool . | cut -f1)"
first_report() {
    "${offline[@]}" "${as[@]}" bash -ec '
        mkdir -p project/results project/engines project/tests
        for package in results engines tests; do
            echo "raise SystemExit(\"shadowed\")" > "project/$package/__init__.py"
        done
        cd project && export PYTHONPATH=$PWD
        workbench --version
        workbench doctor > doctor.txt || grep -E "^problem" doctor.txt || true
        if [ -z "$0" ]; then
            printf "engine = \"probe\"\nsubsets = \"none\"\nmodels = \"none\"\n" > plan.toml
        else
            workbench init --data emoji_mm_train --cpu --compare nothing --set epochs=1 < /dev/null
        fi
        workbench run plan.toml --headless > run.txt
        workbench report | head -n 20' "$extra"
}
clock "first report, offline" first_report
