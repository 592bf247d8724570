# install.sh VENV: what /tmp/requirements.txt names goes into VENV, by hash, from wheels, compiled for a read-only root.
set -eu
if [ -s /run/ca.pem ]; then
    export PIP_CERT=/run/ca.pem
fi
/opt/tools/bin/pip --python "$1/bin/python" install --quiet --disable-pip-version-check --no-cache-dir --no-compile \
    --require-hashes --only-binary :all: -r /tmp/requirements.txt
# Tests and sources of what is compiled; debug sections.
find "$1/lib" -depth \( -type d -name tests -o -type f -name '*.py[xi]' -o -type f -name '*.pxd' \
    -o -type f -name '*.[ch]' -o -type f -name '*.cpp' \) -exec rm -rf {} +
"$1/bin/python" /tmp/strip.py "$1/lib"
"$1/bin/python" -m compileall -q --invalidation-mode unchecked-hash "$1/lib"
