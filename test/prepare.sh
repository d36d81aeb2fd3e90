#!/bin/sh
# Usage: test/prepare.sh test|bench|bgp|page|lint|generate|race|managers|kernels [ARCHITECTURE]|emulator PROGRAM
#
# Looks for the programs besides Go that a make target uses. As root on Debian
# or its descendants it installs the missing ones, and says so; anybody else is
# told what is missing and what will go untested for it. With "race" it prints
# the flag of the race detector if that can be used here.
set -eu

# cgo is what the race detector needs.
can_race() {
	[ "$(go env CGO_ENABLED)" = 1 ] && command -v "$(go env CC | cut -d' ' -f1)" >/dev/null 2>&1
}

# need PROGRAM PACKAGE WHAT-FOR
need() {
	PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null 2>&1 || missing "$2" "$3"
}

need_race() {
	can_race || { missing gcc "the race detector"; missing libc6-dev "the race detector"; }
}

# unpack PROGRAM PACKAGE WHAT-FOR: where installing the package would start a server.
# Only bin/ gets the program, and no root is needed.
unpack() {
	if [ -x "bin/$1" ] || command -v "$1" >/dev/null 2>&1; then return; fi
	if ! command -v apt-get >/dev/null 2>&1 || ! command -v dpkg-deb >/dev/null 2>&1; then
		echo "prepare: missing $1, for $3; put it into bin/ or into PATH" >&2
		return
	fi
	echo "prepare: unpacking $1 out of Debian's package $2 into bin/"
	unpacked=$(mktemp -d)
	chmod 755 "$unpacked" # apt downloads as another user
	[ "$(id -u)" != 0 ] || apt-get update -qq >/dev/null
	if (cd "$unpacked" && apt-get download -qq "$2" 2>/dev/null >/dev/null && dpkg-deb -x "$2"_*.deb .); then
		mkdir -p bin
		mv "$unpacked/usr/bin/$1" bin/
	else
		echo "prepare: package $2 cannot be downloaded: $1 is missing, for $3" >&2
		[ "$(id -u)" != 0 ] || exit 1 # as where a package cannot be installed
	fi
	rm -rf "$unpacked"
}

# without_starting COMMAND: what is installed meanwhile starts no servers.
without_starting() {
	policy=/usr/sbin/policy-rc.d
	if [ -e "$policy" ]; then
		"$@"
		return
	fi
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod 755 "$policy"
	status=0
	"$@" || status=$?
	rm -f "$policy"
	return "$status"
}

packages=""
purposes=""
missing() {
	packages="$packages $1"
	purposes="$purposes
  $1: $2"
}

case "${1:-}" in
race)
	if can_race; then echo "-race"; else echo "prepare: no C compiler, so the race detector is off" >&2; fi
	exit 0
	;;
test)
	need_race
	need nft nftables "tests that show the ruleset, and the portmap plugin behind flatnet"
	need tc iproute2 "tests of the fast path"
	need ethtool ethtool "tests of the fast path"
	need setpriv util-linux "tests of the fast path"
	need iptables iptables "tests with the portmap and firewall plugins behind flatnet"
	unpack promtool prometheus "tests of alerts and of the dashboard's queries"
	;;
bench)
	[ -x /usr/lib/cni/ptp ] || missing containernetworking-plugins "the plugins to compare with"
	need iptables iptables "the plugins to compare with, where they masquerade"
	need nft nftables "the data path with a masquerading rule made by hand, and Services"
	# From Kubernetes' Go module, once; bin/e2e/bin keeps it. Takes minutes.
	if [ ! -x bin/e2e/bin/kube-proxy ]; then
		(cd test/e2e && go build -o ../../bin/e2e/cluster ./cluster)
		bin/e2e/cluster build kube-proxy
	fi
	;;
page)
	need chromium chromium "the page in a browser"
	;;
kernels)
	case "${2:-$(go env GOARCH)}" in
	arm64) need qemu-system-aarch64 qemu-system-arm "machines to boot kernels in" ;;
	*) need qemu-system-x86_64 qemu-system-x86 "machines to boot kernels in" ;;
	esac
	need modprobe kmod "a guest's modules"
	need xz xz-utils "a guest's modules"
	need busybox busybox-static "a guest's programs"
	need ip iproute2 "a guest's programs"
	need sysctl procps "a guest's programs"
	need nft nftables "tests that show the ruleset"
	need iptables iptables "tests with the plugins of others"
	need conntrack conntrack "tests with flowtables"
	need ping iputils-ping "a guest's programs"
	need ethtool ethtool "a guest's programs"
	;;
emulator)
	need "$2" qemu-user-static "programs of another architecture"
	;;
managers)
	need debootstrap debootstrap "a Debian for the emulated machine"
	need qemu-system-x86_64 qemu-system-x86 "the emulated machine"
	need mke2fs e2fsprogs "its disk"
	;;
bgp)
	need_race
	need bird bird2 "a router to talk to"
	[ -x /usr/lib/frr/bgpd ] || missing frr "another router to talk to"
	;;
lint|generate)
	# Compared only where this is the clang that there is; see test/programs.sh.
	if [ "$(id -u)" = 0 ] && apt-cache policy clang-14 2>/dev/null | grep -q "14.0.6"; then
		need clang-14 clang-14 "the objects of eBPF programs"
		need llvm-strip-14 llvm-14 "the objects of eBPF programs"
		[ -e /usr/include/linux/bpf.h ] || missing linux-libc-dev "the objects of eBPF programs"
	fi
	;;
*)
	echo "usage: $0 test|bench|bgp|page|lint|generate|race|managers|kernels [ARCHITECTURE]|emulator PROGRAM" >&2
	exit 2
	;;
esac

[ -z "$packages" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
	echo "prepare: installing Debian packages:$packages"
	export DEBIAN_FRONTEND=noninteractive
	apt-get update -qq >/dev/null
	# shellcheck disable=SC2086 # one word a package
	without_starting apt-get install -y -qq --no-install-recommends $packages >/dev/null
else
	echo "prepare: missing, and what each is for:$purposes"
	echo "prepare: as root on Debian: apt-get install$packages"
fi
