"""Gets packages from Debian's archive by apt with a state of its own: nothing is installed on this machine, and another
architecture is no difference. apt checks signatures and hashes. Does not read this machine's sources or pins."""

import os
import pathlib
import re
import subprocess
import time

from .failure import KernelsError

MIRROR = "http://deb.debian.org"
SUITES = ("debian bookworm", "debian bookworm-updates", "debian bookworm-backports", "debian-security bookworm-security")
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
LISTS_MAX_AGE_S = 14 * 86400  # then the newest kernels are asked for again
PLANNED = re.compile(r"^Inst (\S+) \((\S+) .*\[(\w+)\]\)", re.MULTILINE)
KERNEL = re.compile(r"linux-image-[\w.+~-]+")


class Apt:
    """apt for one architecture, with everything it keeps in one folder."""

    def __init__(self, architecture: str, folder: pathlib.Path) -> None:
        self.architecture = architecture
        self.archives = folder / "cache" / "archives"
        self._conf = folder / "apt.conf"
        self._stamp = folder / "lists.stamp"
        for sub in ("etc/apt.conf.d", "etc/preferences.d", "state/lists/partial", "cache/archives/partial"):
            (folder / sub).mkdir(parents=True, exist_ok=True)
        (folder / "state" / "status").write_text("")  # nothing counts as installed: every dependency is fetched
        signed = f"deb [arch={architecture} signed-by={KEYRING}] {MIRROR}"
        (folder / "etc" / "sources.list").write_text("".join(f"{signed}/{suite} main\n" for suite in SUITES))
        settings = {
            "APT::Architecture": architecture,
            "APT::Architectures::": architecture,
            "APT::Sandbox::User": "root",  # else apt warns that its own user cannot read the folder
            "APT::Install-Recommends": "0",
            "Acquire::Languages": "none",
            "Dir::Etc": folder / "etc",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::State": folder / "state",
            "Dir::State::status": folder / "state" / "status",
            "Dir::Cache": folder / "cache",
        }
        self._conf.write_text("".join(f'{name} "{value}";\n' for name, value in settings.items()))

    def _run(self, *command: str) -> str:
        environment = os.environ | {"APT_CONFIG": str(self._conf), "LC_ALL": "C.UTF-8"}
        ran = subprocess.run(command, env=environment, cwd=self.archives, capture_output=True, text=True, check=False)
        if ran.returncode:
            raise KernelsError(f"{' '.join(command[:4])} failed: {(ran.stderr or ran.stdout).strip()[-400:]}")
        return ran.stdout

    def refresh(self) -> None:
        """Fetch the package lists when there are none or they are old. Without the archive, old ones will do."""
        if self._stamp.exists() and time.time() - self._stamp.stat().st_mtime < LISTS_MAX_AGE_S:
            return
        try:
            self._run("apt-get", "update", "-q", "--error-on=any")
        except KernelsError:
            if not self._stamp.exists():
                raise
            return
        self._stamp.touch()

    def with_dependencies(self, packages: list[str]) -> list[pathlib.Path]:
        """The files of these packages and of everything that they need."""
        planned = PLANNED.findall(self._run("apt-get", "-s", "-qq", "install", *packages))
        files = [self._file(*package) for package in planned]
        if not all(file.exists() for file in files):
            self._run("apt-get", "install", "-y", "-qq", "--download-only", *packages)
        return files

    def kernel(self, metapackage: str, version: str) -> pathlib.Path:
        """The file of the newest kernel package whose version begins with `version`."""
        for stanza in self._run("apt-cache", "show", metapackage).split("\n\n"):
            fields = dict(line.split(": ", 1) for line in stanza.splitlines() if ": " in line and not line.startswith(" "))
            name = KERNEL.search(fields.get("Depends", ""))
            if fields.get("Version", "").startswith(version) and name:
                return self._download(name.group(), fields["Version"])
        raise KernelsError(f"Debian has no {metapackage} {version}* for {self.architecture} (looked in {', '.join(SUITES)})")

    def _download(self, package: str, version: str) -> pathlib.Path:
        file = self._file(package, version, self.architecture)
        if not file.exists():
            self._run("apt-get", "download", "-q", f"{package}={version}")
        if not file.exists():
            raise KernelsError(f"apt fetched {package} {version}, but not as {file}")
        return file

    def _file(self, package: str, version: str, architecture: str) -> pathlib.Path:
        return self.archives / f"{package}_{version.replace(':', '%3a')}_{architecture}.deb"


def unpack(package: pathlib.Path, folder: pathlib.Path, *members: str) -> None:
    """Unpack a package's files, or those that match `members`, into a folder. No maintainer script runs."""
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE) as stream:
        # --keep-directory-symlink: /lib is a link to /usr/lib, and packages still name both.
        command = ["tar", "-x", "--keep-directory-symlink", "--no-same-owner", "--wildcards", "-C", str(folder), *members]
        status = subprocess.run(command, stdin=stream.stdout, check=False).returncode
        assert stream.stdout is not None
        stream.stdout.read()  # tar stops reading early when it has its members
    if status or stream.returncode:
        raise KernelsError(f"{package.name} cannot be unpacked; delete {package} and try again")
