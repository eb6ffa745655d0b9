#!/bin/sh
# chromium.sh FOLDER - Debian's chromium with what it needs, unpacked below FOLDER; no root, nothing installed.
# apt resolves and downloads into FOLDER. FOLDER/chromium is then the browser, which is printed.
set -eu
B=$(mkdir -p "$1" && cd "$1" && pwd)
RUN=$B/chromium
[ -x "$RUN" ] && { echo "$RUN"; exit 0; }
command -v apt-get >/dev/null || { echo "chromium.sh: no apt-get here: this is not Debian" >&2; exit 1; }
mkdir -p "$B/lists/partial" "$B/archives/partial" "$B/root"
APT="apt-get -qq -o Dir::State::Lists=$B/lists -o Dir::Cache=$B -o Dir::Cache::archives=$B/archives -o Debug::NoLocking=1
  -o Dir::State::status=/var/lib/dpkg/status -o APT::Sandbox::User="
$APT update
$APT install --yes --download-only --no-install-recommends --reinstall chromium fontconfig-config fonts-dejavu-core >"$B/apt.log" 2>&1 ||
  { cat "$B/apt.log" >&2; exit 1; }
for package in "$B"/archives/*.deb; do dpkg-deb --extract "$package" "$B/root"; done
rm -rf "$B/archives" "$B/lists"
cat >"$B/fonts.conf" <<END
<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><dir>$B/root/usr/share/fonts</dir><cachedir>$B/fontcache</cachedir></fontconfig>
END
LIB=$B/root/usr/lib/$(dpkg-architecture -qDEB_HOST_MULTIARCH 2>/dev/null || uname -m | sed 's/$/-linux-gnu/')
cat >"$RUN" <<END
#!/bin/sh
LD_LIBRARY_PATH=$LIB:$LIB/pulseaudio FONTCONFIG_FILE=$B/fonts.conf exec $B/root/usr/lib/chromium/chromium "\$@"
END
chmod +x "$RUN"
"$RUN" --version >/dev/null || { rm "$RUN"; echo "chromium.sh: what was unpacked does not run" >&2; exit 1; }
echo "$RUN"
