#!/usr/bin/env bash
# Installs what building zsigma needs on Debian 12/13 and Ubuntu 24.04 or later, and what is too old or absent there into BUILD/sys.
#   usage: tools/setup.sh BUILD [tests|driver|pip]
# With "tests" also what the tests need: compilers with sanitizers and fuzzing, drivers that run without a GPU. "driver" and
# "pip" install only that: Mesa's Vulkan drivers (AMD, Intel, and one that runs on the CPU), Python's package installer.
# Nothing outside BUILD changes but packages of the distribution being installed.
set -euo pipefail
build=${1:?usage: tools/setup.sh BUILD [tests|driver|pip]}
purpose=${2:-}
mkdir -p "$build"
build=$(cd "$build" && pwd)
# shellcheck source=/dev/null
. /etc/os-release
as_root=()
if [ "$(id -u)" != 0 ]; then as_root=(sudo); fi

say() { printf '%s\n' "$*" >&2; }
if ! command -v apt-get >/dev/null; then
    say "${PRETTY_NAME:-This system} has no apt-get: install by hand what README.md lists under \"Without the scripts\", then run its cmake lines"
    exit 1
fi
updated=
# Installs those of the packages that are missing; asks for no password when there is nothing to do.
install_missing() {
    local missing=() package
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    [ ${#missing[@]} = 0 ] && return
    if [ ${#as_root[@]} != 0 ] && ! command -v sudo >/dev/null; then
        say "there is no sudo here; as root, run: apt-get install --no-install-recommends ${missing[*]}"
        exit 1
    fi
    say "installing ${missing[*]}"
    if [ -z "$updated" ]; then "${as_root[@]}" apt-get update -qq >&2 && updated=1; fi
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >"$build/setup.log" 2>&1 ||
        { cat "$build/setup.log" >&2; say "cannot install ${missing[*]}"; exit 1; }
}

# Address of the system's own mirror, so that none has to be named here.
mirror() {
    local address
    address=$(grep -rhoP '^\s*(URIs:|deb(\s+\[[^]]*\])?)\s*\Khttps?://\S+' /etc/apt/sources.list /etc/apt/sources.list.d/*.sources /etc/apt/sources.list.d/*.list 2>/dev/null |
        grep -E '/debian/?$' | head -n 1)
    [ -n "$address" ] || { say "no Debian mirror in the system's apt configuration"; exit 1; }
    printf '%s' "${address%/}"
}

# An apt configuration of its own in folder $1 with the suites $3 … of the mirror; $2 is dpkg's status file to go by.
own_apt() {
    local folder=$1 status=$2 suite
    shift 2
    mkdir -p "$folder/lists/partial" "$folder/cache/archives/partial" "$folder/empty"
    : >"$folder/sources.list"
    for suite in "$@"; do
        printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n' "$(mirror)" "$suite" >>"$folder/sources.list"
    done
    cat >"$folder/apt.conf" <<END
Dir::Etc::sourcelist "$folder/sources.list";
Dir::Etc::sourceparts "$folder/empty";
Dir::State::lists "$folder/lists";
Dir::Cache "$folder/cache";
Dir::State::status "$status";
APT::Sandbox::User "root";
END
    APT_CONFIG=$folder/apt.conf apt-get update -qq >&2
}

# volk, Vulkan headers, glslc and stb of Debian 13, unpacked beside the build. Debian 12's stb_image reads past its tables on damaged JPEGs.
unpack_newer_tools() {
    [ -e "$build/sys/complete" ] && [ -e "$build/sys/usr/include/stb/stb_image.h" ] && return
    say "taking volk, glslc and stb from Debian 13 into $build/sys"
    rm -rf "$build/sys"
    mkdir -p "$build/sys/packages"
    own_apt "$build/sys/apt" /dev/null trixie
    (cd "$build/sys/packages" && APT_CONFIG=$build/sys/apt/apt.conf apt-get download -qq \
        libvulkan-volk-dev libvulkan-dev libstb-dev glslc libshaderc1 libc6 libstdc++6 libgcc-s1 >&2)
    local package
    for package in "$build"/sys/packages/*.deb; do dpkg-deb -x "$package" "$build/sys"; done
    rm -rf "$build/sys/packages" "$build/sys/apt"
    touch "$build/sys/complete"
}

# Mesa 26 of Debian 13's backports, with every library below it, beside the build: its lavapipe has cooperative matrices, and
# tests/newer_mesa.sh runs programs on it.
unpack_newer_mesa() {
    [ -e "$build/mesa/complete" ] && return
    say "taking lavapipe with cooperative matrices from Debian 13's backports into $build/mesa"
    rm -rf "$build/mesa"
    mkdir -p "$build/mesa/packages/partial"
    own_apt "$build/mesa/apt" /dev/null trixie trixie-backports
    APT_CONFIG=$build/mesa/apt/apt.conf apt-get install -y -qq --download-only --no-install-recommends \
        -o "Dir::Cache::archives=$build/mesa/packages" -t trixie-backports mesa-vulkan-drivers libvulkan1 >"$build/setup.log" 2>&1 ||
        { cat "$build/setup.log" >&2; say "cannot get Mesa of Debian 13's backports"; exit 1; }
    local package
    for package in "$build"/mesa/packages/*.deb; do dpkg-deb -x "$package" "$build/mesa"; done
    rm -rf "$build/mesa/packages" "$build/mesa/apt"
    # Its driver is found by the path, not by the system's loader.
    sed "s#\"library_path\": *\"\([^\"]*\)\"#\"library_path\": \"$build/mesa/usr/lib/x86_64-linux-gnu/\1\"#" \
        "$build/mesa/usr/share/vulkan/icd.d/lvp_icd.json" >"$build/mesa/lvp_icd.json"
    touch "$build/mesa/complete"
}

# Debian 12's lavapipe is too old for half of what the tests look at, and several times slower than the one of its backports.
install_mesa() {
    local version
    if [ "$ID-$VERSION_ID" != debian-12 ]; then
        install_missing mesa-vulkan-drivers
        return
    fi
    version=$(dpkg-query -W -f '${Version}' mesa-vulkan-drivers 2>/dev/null || echo 0)
    if dpkg --compare-versions "$version" ge 24; then return; fi
    say "installing mesa-vulkan-drivers from the backports"
    own_apt "$build/backports" /var/lib/dpkg/status "$VERSION_CODENAME" "$VERSION_CODENAME-updates" "$VERSION_CODENAME-backports"
    "${as_root[@]}" env APT_CONFIG="$build/backports/apt.conf" DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends -t "$VERSION_CODENAME-backports" mesa-vulkan-drivers >"$build/setup.log" 2>&1 ||
        { cat "$build/setup.log" >&2; say "cannot install mesa-vulkan-drivers"; exit 1; }
}

case $purpose in
driver) install_mesa; exit ;;
pip) install_missing ca-certificates python3-pip; exit ;;
esac
install_missing ca-certificates gcc libc6-dev gfortran cmake ninja-build pkg-config ccache libjansson-dev libpcre2-dev liblapacke-dev libopenblas-dev zlib1g-dev bubblewrap libvulkan1
# Cooperative matrices came into glslc and the headers with 1.3.275, which is what Ubuntu 24.04 has.
volk=$(apt-cache policy libvulkan-volk-dev | sed -n 's/^ *Candidate: //p')
if dpkg --compare-versions "${volk:-0}" ge 1.3.275; then
    install_missing libvulkan-volk-dev libvulkan-dev libstb-dev glslc
else
    unpack_newer_tools
fi
[ "$purpose" = tests ] || exit 0

install_missing libcmocka-dev clang libclang-rt-dev clang-format clang-tidy python3 unzip
install_mesa
# SwiftShader and the validation layer: in Debian's Chromium; on Ubuntu there is no such package (a snap), and tests/drivers.sh says what is left out.
if [ "$ID" = debian ]; then
    install_missing chromium-common
    unpack_newer_mesa
else
    install_missing vulkan-validationlayers
fi
