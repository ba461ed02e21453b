"""Logins at the API server: service account, and kubeconfig with token, certificate and plugin."""

from __future__ import annotations

import asyncio
import base64
import os
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme
from netutil.agent.errors import Unavailable
from netutil.agent.pods.http import login_files
from netutil.agent.pods.http.apiserver_client import ApiServerClient
from netutil.agent.pods.http.apiserver_login import (
    KubeconfigFile,
    KubeconfigLogin,
    Login,
    ServiceAccount,
    open_login,
)
from netutil.agent.pods.http.bounded import read_body
from netutil.agent.pods.http.exec_plugin import MAX_PLUGIN_BYTES
from netutil.agent.pods.sources.apiserver import ApiServerSettings, ApiServerSource
from netutil.agent.pods.sources.listwatch import decode_versions

from tests.support.fakes.apiserver import NODE, ApiServer, api_server, following, pod, refusing
from tests.support.fakes.certificates import context_of
from tests.support.fakes.kubeconfigs import answer, descriptors, kubeconfig, plugin, runs
from tests.support.fakes.kubelet import dripping, gzip_bomb
from tests.support.processes import open_descriptors
from tests.support.waiting import until

PATH = "/api/v1/pods"
FIRST = "first-token"
QUERY = {"fieldSelector": f"spec.nodeName={NODE}"}


def get(login: Login, query: dict[str, str] | None = None) -> bytearray:
    client = ApiServerClient(login, PATH)
    with client.get(PATH, query or QUERY, read_seconds=5, whole_seconds=10, gzip=True) as response:
        return read_body(response, 2**20)


def failure(login: Login) -> Unavailable:
    with pytest.raises(Unavailable) as failed:
        get(login)
    return failed.value


@pytest.fixture
def directory(tmp_path: Path, ca_file: str) -> Path:
    assert Path(ca_file).parent == tmp_path  # where kubeconfigs of these tests look for it
    return tmp_path


@pytest.fixture
def certificate_api(ca: trustme.CA) -> Iterator[ApiServer]:
    """One that asks for a client certificate, and for no token."""
    context = context_of(ca.issue_cert("127.0.0.1"))
    ca.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    with api_server(context) as made:
        made.needs_token = False
        yield made


class TestServiceAccount:
    @pytest.fixture
    def login(self, api: ApiServer, ca_file: str, token_file: str) -> Login:
        return open_login(ServiceAccount(api.url, ca_file, token_file))

    def test_a_rotated_token_is_used_by_the_next_request(
        self, login: Login, api: ApiServer, token_file: str
    ) -> None:
        assert get(login)
        api.tokens = {"second-token"}
        Path(token_file).write_text("second-token")
        assert get(login)

    def test_a_proxy_of_the_environment_is_not_used(
        self, login: Login, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:1")
        monkeypatch.setenv("NO_PROXY", "")
        assert get(login)

    def test_a_redirect_to_the_same_server_is_not_followed(
        self, login: Login, api: ApiServer
    ) -> None:
        api.lists.append(refusing(302, "", "", {"Location": f"{api.url}{PATH}?again=1"}))
        assert "302" in failure(login).message
        assert len(api.double.requests) == 1

    def test_a_url_with_a_path_and_a_password_is_shown_without(self, ca_file: str) -> None:
        login = open_login(ServiceAccount("https://me:pw@192.0.2.1/rancher/c1/?a=b", ca_file, ""))
        assert login.describe() == "https://192.0.2.1/rancher/c1"

    @pytest.mark.parametrize("content", ["", "a b", "first-token\nsecond", "t\u00f6ken"])
    def test_a_file_without_a_token_is_reported_and_not_shown(
        self, login: Login, token_file: str, content: str
    ) -> None:
        Path(token_file).write_text(content)
        failed = failure(login)
        assert "--apiserver-token" in f"{failed.message}{failed.advice}"
        assert not content or content not in failed.message

    def test_a_giant_token_file_is_not_read(
        self, login: Login, token_file: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        Path(token_file).write_bytes(b"x" * (login_files.MAX_TOKEN_BYTES + 1))
        assert "larger than 65536 bytes" in failure(login).message

    def test_a_pipe_in_place_of_the_token_is_not_opened(
        self, login: Login, token_file: str
    ) -> None:
        os.unlink(token_file)
        os.mkfifo(token_file)
        assert "no regular file" in failure(login).message

    @pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\n\r\n"], ids=["head", "body"])
    def test_an_answer_that_drips_ends_in_time(
        self, login: Login, api: ApiServer, head: bytes
    ) -> None:
        drip = dripping(head or b"HTTP/1.1 200 ", 0.1)
        api.lists.append(lambda handler, query: drip(handler))
        client, began = ApiServerClient(login, PATH), time.monotonic()
        with (
            pytest.raises(Unavailable, match="did not finish its answer within 1 s"),
            client.get(PATH, QUERY, read_seconds=5, whole_seconds=1, gzip=True) as response,
        ):
            decode_versions(read_body(response, 2**20))
        assert time.monotonic() - began < 20

    def test_a_body_beyond_its_bound_is_not_read(self, login: Login, api: ApiServer) -> None:
        bomb = gzip_bomb(64 * 2**20)
        api.lists.append(lambda handler, query: bomb(handler))
        client = ApiServerClient(login, PATH)
        with (
            pytest.raises(Unavailable, match="larger than 1048576 bytes"),
            client.get(PATH, QUERY, read_seconds=5, whole_seconds=20, gzip=True) as response,
        ):
            read_body(response, 2**20)

    def test_a_request_leaves_no_connection(self, login: Login, api: ApiServer) -> None:
        get(login)
        before = open_descriptors() - len(api.double.connections)
        for _ in range(10):
            get(login)
        api.lists += [refusing(500, "InternalError", "no")] * 10
        for _ in range(10):
            failure(login)
        assert open_descriptors() - len(api.double.connections) <= before

    def test_a_ca_file_without_a_certificate_is_reported(self, login: Login, ca_file: str) -> None:
        Path(ca_file).write_text("none\n")
        assert failure(login).message == "The CA bundle of --apiserver-ca holds no certificate."


class TestKubeconfig:
    def test_a_token_logs_in(self, api: ApiServer, directory: Path) -> None:
        path = kubeconfig(directory, api.url, {"token": "first-token"})
        assert get(open_login(KubeconfigFile(path)))

    def test_a_rotated_token_file_is_used_by_the_next_request(
        self, api: ApiServer, directory: Path
    ) -> None:
        path = kubeconfig(directory, api.url, {"tokenFile": "user-token"})
        login = open_login(KubeconfigFile(path))
        for token in ("first-token", "second-token"):
            (directory / "user-token").write_text(f"{token}\n")
            api.tokens = {token}
            assert get(login)

    def test_an_edited_kubeconfig_is_used_by_the_next_request(
        self, api: ApiServer, directory: Path
    ) -> None:
        login = open_login(KubeconfigFile(kubeconfig(directory, api.url, {"token": "old"})))
        assert "HTTP status 401" in failure(login).message
        kubeconfig(directory, api.url, {"token": "first-token"})
        assert get(login)

    @pytest.mark.parametrize("inside", [True, False], ids=["data", "files"])
    def test_a_client_certificate_logs_in(
        self, certificate_api: ApiServer, ca: trustme.CA, directory: Path, inside: bool
    ) -> None:
        leaf = ca.issue_cert("agent@node")
        parts = {
            "certificate-authority": ca.cert_pem.bytes(),
            "client-certificate": leaf.cert_chain_pems[0].bytes(),
            "client-key": leaf.private_key_pem.bytes(),
        }
        given = {}
        for name, content in parts.items():
            if inside:
                given[f"{name}-data"] = base64.b64encode(content).decode()
            else:
                (directory / f"{name}.pem").write_bytes(content)
                given[name] = f"{name}.pem"
        is_of_cluster = [name for name in given if name.startswith("certificate-authority")]
        cluster = {name: given.pop(name) for name in is_of_cluster}
        cluster["server"] = certificate_api.url
        path = kubeconfig(directory, certificate_api.url, given, cluster)
        before, files = descriptors(), set(os.listdir("/dev/shm"))
        assert get(open_login(KubeconfigFile(path)))
        left = {one for one in descriptors() - before if "/dev/shm" in one or "pem" in one}
        assert not left and set(os.listdir("/dev/shm")) == files

    def test_a_missing_client_certificate_is_reported(
        self, certificate_api: ApiServer, directory: Path
    ) -> None:
        path = kubeconfig(directory, certificate_api.url, {"token": "first-token"})
        failed = failure(open_login(KubeconfigFile(path)))
        assert "client certificate" in failed.message or "broke off" in failed.message

    def test_tls_server_name_is_what_the_certificate_is_checked_for(
        self, api: ApiServer, ca: trustme.CA, directory: Path
    ) -> None:
        cluster = {"server": api.url, "certificate-authority": "ca.crt"}
        cluster["tls-server-name"] = "api.example"
        path = kubeconfig(directory, api.url, {"token": "first-token"}, cluster)
        login = open_login(KubeconfigFile(path))
        assert "another" in failure(login).message
        api.double.context = context_of(ca.issue_cert("api.example"))
        assert get(login)

    @pytest.mark.parametrize(
        ("user", "cluster", "said"),
        [
            ({"token": "a"}, {"server": "http://127.0.0.1"}, "is not https://HOST:PORT"),
            (
                {"token": "a"},
                {"certificate-authority": "absent.crt"},
                "absent.crt, cannot be used: No",
            ),
            ({"token": "a"}, {"certificate-authority-data": "%%"}, "is no base64"),
            ({"tokenFile": "absent"}, {}, "absent, cannot be used: No such file"),
            ({"token": "a b"}, {}, "holds no bearer token"),
        ],
    )
    def test_an_unusable_login_is_reported(
        self, api: ApiServer, directory: Path, user: dict[str, Any], cluster: Any, said: str
    ) -> None:
        whole = {"server": api.url, "certificate-authority": "ca.crt", **cluster}
        path = kubeconfig(directory, api.url, user, whole)
        assert said in failure(open_login(KubeconfigFile(path))).message

    def test_a_missing_kubeconfig_is_reported_and_found_later(
        self, api: ApiServer, directory: Path
    ) -> None:
        login = open_login(KubeconfigFile(str(directory / "kubeconfig")))
        assert "--kubeconfig" in failure(login).message
        kubeconfig(directory, api.url, {"token": "first-token"})
        assert get(login)

    def test_a_giant_kubeconfig_is_not_read(self, directory: Path) -> None:
        path = directory / "kubeconfig"
        path.write_bytes(b" " * (login_files.MAX_FILE_BYTES + 1))
        assert "larger than" in failure(open_login(KubeconfigFile(str(path)))).message

    async def test_its_pods_are_followed(self, api: ApiServer, directory: Path) -> None:
        api.put(pod(1, "web"))
        path = kubeconfig(directory, api.url, {"token": "first-token"})
        settings = {"login": KubeconfigFile(path), "node_name": NODE}
        async with following(settings) as listed:
            assert len((await listed.refresh()).pods) == 1
        assert ApiServerSource(ApiServerSettings(KubeconfigFile(path), NODE)).describe() == path


class TestExecPlugin:
    def test_its_token_logs_in_and_is_kept(self, api: ApiServer, directory: Path) -> None:
        user = plugin(directory, 'test "$LOGIN_REGION" = north\n' + answer(token=FIRST))
        login = open_login(KubeconfigFile(kubeconfig(directory, api.url, user)))
        assert get(login) and get(login)
        assert runs(directory) == 1

    def test_it_does_not_run_where_the_file_has_a_token(
        self, api: ApiServer, directory: Path
    ) -> None:
        user = plugin(directory, answer(token=FIRST[::-1])) | {"token": FIRST}
        assert get(open_login(KubeconfigFile(kubeconfig(directory, api.url, user))))
        assert not (directory / "runs").exists()

    def test_its_client_certificate_logs_in(
        self, certificate_api: ApiServer, ca: trustme.CA, directory: Path
    ) -> None:
        leaf = ca.issue_cert("agent@node")
        pair = {
            "clientCertificateData": leaf.cert_chain_pems[0].bytes().decode(),
            "clientKeyData": leaf.private_key_pem.bytes().decode(),
        }
        user = plugin(directory, answer(**pair))
        assert get(open_login(KubeconfigFile(kubeconfig(directory, certificate_api.url, user))))

    def test_it_runs_again_when_its_answer_has_expired(
        self, api: ApiServer, directory: Path
    ) -> None:
        now = [datetime(2026, 1, 1, tzinfo=UTC)]
        script = answer(token=FIRST, expirationTimestamp="2026-01-01T01:00:00Z")
        path = kubeconfig(directory, api.url, plugin(directory, script))
        login = KubeconfigLogin(KubeconfigFile(path), lambda: now[0])
        assert get(login)
        now[0] += timedelta(minutes=59)
        assert get(login) and runs(directory) == 1
        now[0] += timedelta(minutes=1)
        assert get(login) and runs(directory) == 2

    def test_it_runs_again_when_the_api_server_rejects_its_answer(
        self, api: ApiServer, directory: Path
    ) -> None:
        script = f"cat {directory}/answer"
        path = kubeconfig(directory, api.url, plugin(directory, script))
        login = open_login(KubeconfigFile(path))
        write_answer(directory, "old-token")
        failed = failure(login)
        assert "HTTP status 401" in failed.message and "--kubeconfig" in failed.advice
        write_answer(directory, "first-token")
        assert get(login) and runs(directory) == 2

    def test_an_answer_without_a_time_has_expired(self, api: ApiServer, directory: Path) -> None:
        script = answer(token=FIRST, expirationTimestamp="0001-01-01T00:00:00Z")  # Go's zero
        path = kubeconfig(directory, api.url, plugin(directory, script))
        login = open_login(KubeconfigFile(path))
        assert get(login) and get(login)
        assert runs(directory) == 2

    def test_a_cluster_with_an_odd_extension_is_reported(
        self, api: ApiServer, directory: Path
    ) -> None:
        user = plugin(directory, answer(token=FIRST))
        user["exec"]["provideClusterInfo"] = True
        cluster = {"server": api.url, "certificate-authority": "ca.crt", "extensions": [{"e": 1}]}
        path = kubeconfig(directory, api.url, user, cluster)
        failed = failure(open_login(KubeconfigFile(path)))
        assert "an extension of the cluster lacks its fields" in failed.message
        assert runs(directory) == 0

    def test_it_runs_again_when_the_kubeconfig_has_changed(
        self, api: ApiServer, directory: Path
    ) -> None:
        user = plugin(directory, answer(token=FIRST))
        login = open_login(KubeconfigFile(kubeconfig(directory, api.url, user)))
        assert get(login)
        kubeconfig(directory, api.url, user)
        assert get(login) and runs(directory) == 2

    @pytest.mark.parametrize(
        ("script", "said"),
        [
            ("echo no region >&2; exit 3", "process returned 3. no region"),
            ("echo secret-word", "failed to decode process output"),
            ("echo '[]'", "missing key"),
            (answer(), "neither a token nor a client certificate"),
            (answer(clientCertificateData="a"), "neither a token nor a client certificate"),
            (answer(token=FIRST, expirationTimestamp="soon"), "no ExecCredential: ValueError"),
            (
                answer(token=FIRST, expirationTimestamp="2026-01-01T00:00:00+99:99"),
                "no ExecCredential: ValueError",
            ),
            (
                answer(token=FIRST, expirationTimestamp="9999-12-31T23:59:59-01:00"),
                "no ExecCredential: OverflowError",
            ),
            ("kill -9 $$", "process returned 137"),
            ("printf '\\377'", "no ExecCredential: UnicodeDecodeError"),
            (f"head -c {MAX_PLUGIN_BYTES + 1} /dev/zero", "wrote more than 262144 bytes"),
            (f"head -c {MAX_PLUGIN_BYTES + 1} /dev/zero >&2", "wrote more than 262144 bytes"),
        ],
    )
    def test_its_failure_is_reported(
        self, api: ApiServer, directory: Path, script: str, said: str
    ) -> None:
        path = kubeconfig(directory, api.url, plugin(directory, script))
        failed = failure(open_login(KubeconfigFile(path)))
        assert failed.message.startswith("The exec plugin of --kubeconfig failed: ")
        assert said in failed.message and "secret-word" not in failed.message
        assert len(failed.message) < 400
        assert api.double.requests == []

    def test_a_plugin_that_is_not_there_is_reported(self, api: ApiServer, directory: Path) -> None:
        user = plugin(directory, "")
        (directory / "login-plugin").unlink()
        failed = failure(open_login(KubeconfigFile(kubeconfig(directory, api.url, user))))
        assert "./login-plugin: No such file or directory" in failed.message

    @pytest.mark.parametrize(
        "script",
        [
            "exec sleep 60",
            "sleep 60 & wait",  # a child that holds the pipes
            "exec >&- 2>&-; exec sleep 60",
            "trap '' TERM INT; while :; do sleep 1; done",
        ],
    )
    async def test_it_is_ended_with_its_children_past_its_time(
        self, api: ApiServer, directory: Path, script: str
    ) -> None:
        script = f"echo $$ > {directory}/group\n{script}"
        path = kubeconfig(directory, api.url, plugin(directory, script))
        began = time.monotonic()
        login = open_login(KubeconfigFile(path, plugin_seconds=1.0))
        failed = await asyncio.to_thread(failure, login)
        assert "did not end within 1 s" in failed.message
        assert time.monotonic() - began < 20
        group = int((directory / "group").read_text())
        await until(lambda: not processes_of(group))  # the kernel ends a process that was killed

    async def test_it_does_not_run_on_the_event_loop(self, api: ApiServer, directory: Path) -> None:
        pipe = directory / "go"
        os.mkfifo(pipe)
        script = f"read line < {pipe}\n" + answer(token=FIRST)
        path = kubeconfig(directory, api.url, plugin(directory, script))
        settings = {"login": KubeconfigFile(path, plugin_seconds=60.0), "node_name": NODE}
        async with following(settings) as listed:
            waiting = asyncio.create_task(listed.refresh())
            await until(lambda: runs(directory) == 1)  # the loop goes on while the plugin waits
            await asyncio.to_thread(pipe.write_text, "go\n")
            assert (await waiting).pods == ()
        assert runs(directory) == 1

    async def test_an_interrupt_during_it_ends_the_request(
        self, api: ApiServer, directory: Path
    ) -> None:
        pipe = directory / "go"
        os.mkfifo(pipe)
        script = f"read line < {pipe}\n" + answer(token=FIRST)
        path = kubeconfig(directory, api.url, plugin(directory, script))
        client = ApiServerClient(open_login(KubeconfigFile(path, plugin_seconds=60.0)), PATH)

        def request() -> bytearray:
            with client.get(PATH, QUERY, read_seconds=9, whole_seconds=99, gzip=True) as response:
                return read_body(response, 2**20)

        waiting = asyncio.create_task(asyncio.to_thread(request))
        await until(lambda: runs(directory) == 1)
        client.interrupt()
        await asyncio.to_thread(pipe.write_text, "go\n")
        with pytest.raises(Unavailable):
            await waiting
        assert await asyncio.to_thread(
            request
        )  # the plugin's answer is kept, and others may follow

    async def test_a_closed_source_starts_none(self, api: ApiServer, directory: Path) -> None:
        path = kubeconfig(directory, api.url, plugin(directory, answer(token=FIRST)))
        client = ApiServerClient(open_login(KubeconfigFile(path)), PATH)
        client.abort()
        with (
            pytest.raises(Unavailable, match="closed"),
            client.get(PATH, QUERY, read_seconds=1, whole_seconds=1, gzip=True),
        ):
            pass
        assert runs(directory) == 0


def test_files_without_a_name_end_with_their_stack() -> None:
    with ExitStack() as files:
        path = login_files.unnamed(b"key", files, OSError)
        assert Path(path).read_bytes() == b"key"
        assert "(deleted)" in os.readlink(path)
    assert not os.path.exists(path)


def test_files_that_cannot_be_made_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(login_files, "_UNNAMED_FILES", str(tmp_path / "absent"))
    with ExitStack() as files, pytest.raises(OSError, match="absent cannot be written: No such"):
        login_files.unnamed(b"key", files, OSError)


@pytest.mark.parametrize(
    ("source", "is_imported"),
    [("kubelet", False), ("pods-api", False), ("file:/pods.json", False), ("apiserver", True)],
)
def test_only_the_api_server_imports_the_package(source: str, is_imported: bool) -> None:
    script = (
        "import sys, netutil.agent.app, netutil.agent.lifecycle\n"
        "from netutil.agent.config import parse\n"
        "from netutil.agent.pod_source import create_source\n"
        "create_source(parse(['--pod-source', sys.argv[1], '--node-name', 'a',"
        " '--apiserver-url', 'https://a'], {}))\n"
        "print('kubernetes' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, source], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(is_imported)


def write_answer(directory: Path, token: str) -> None:
    lines = answer(token=token).splitlines()
    (directory / "answer").write_text(lines[1])


def processes_of(group: int) -> set[int]:
    """Return the processes of a group that have not ended."""
    found = set()
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            state, _, number, *_ = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(number) == group and state != "Z":
            found.add(int(name))
    return found
