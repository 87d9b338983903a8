"""Service and container names from command lines and cgroups as they are seen in the field."""

import pytest

from deeptrace.agent.names import container_id, service_name, systemd_unit

HEX = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("cgroup", "expected"),
    [
        (f"0::/system.slice/docker-{HEX}.scope", HEX),
        (f"12:pids:/docker/{HEX}\n0::/", HEX),
        (f"0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod1.slice/cri-containerd-{HEX}.scope", HEX),
        (f"5:cpu:/kubepods/burstable/pod3f1c/{HEX}", HEX),
        (f"0::/system.slice/containerd.service/kubepods-pod1.slice:cri-containerd:{HEX}", HEX),
        (f"0::/kubepods.slice/crio-{HEX}.scope/container", HEX),
        (f"0::/machine.slice/libpod-{HEX}.scope/container", HEX),
        (f"0::/docker/{'a' * 64}/docker/{HEX}", HEX),
        ("0::/system.slice/nginx.service", None),
        (f"4:memory:/process_api/{HEX[:32]}", None),
        (f"0::/x/{HEX}0", None),
        ("", None),
    ],
)
def test_container_id_is_found_in_every_engines_cgroup(cgroup, expected):
    assert container_id(cgroup) == expected


@pytest.mark.parametrize(
    ("cgroup", "expected"),
    [
        ("0::/system.slice/nginx.service", "nginx"),
        ("1:name=systemd:/system.slice/redis@6379.service\n4:memory:/", "redis@6379"),
        ("0::/user.slice/user-1000.slice/session-2.scope", None),
        ("0::/user.slice/user-1000.slice/user@1000.service/init.scope", None),
        ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/notes.service", "notes"),
        (f"0::/system.slice/containerd.service/kubepods-pod1.slice:cri-containerd:{HEX}", None),
        (f"0::/docker/{HEX}/system.slice/nginx.service", "nginx"),
        ("0::/", None),
    ],
)
def test_unit_is_a_service_and_not_a_session_or_the_engine(cgroup, expected):
    assert systemd_unit(cgroup) == expected


@pytest.mark.parametrize(
    ("cmdline", "comm", "expected"),
    [
        ("/usr/sbin/nginx -g daemon", "nginx", "nginx"),
        (["nginx: worker process"], "nginx", "nginx"),
        (["redis-server *:6379"], "redis-server", "redis-server"),
        (["postgres: 15/main: writer "], "postgres", "postgres"),
        ("./a-name-that-is-longer-than-comm", "a-name-that-is-", "a-name-that-is-longer-than-comm"),
        ("-bash", "bash", "bash"),
        ("python3 orders.py --port 80", "python3", "orders"),
        ("/usr/bin/python3.11 -u -X dev /srv/orders.py", "python3.11", "orders"),
        ("/usr/bin/python3 ./orders", "orders", "orders"),
        ("python -m shop.orders", "python", "shop.orders"),
        ("python -Im shop", "python", "shop"),
        ("python -c pass", "python", "python"),
        ("python3", "python3", "python3"),
        ("/venv/bin/python /venv/bin/gunicorn -w 4 -b 0.0.0.0:80 shop.wsgi:app", "gunicorn", "shop.wsgi"),
        ("python -m uvicorn --port 80 orders:app", "python", "orders"),
        ("python /venv/bin/uvicorn orders.main:create_app()", "uvicorn", "orders.main"),
        ("node --require dd-trace /app/server.js", "node", "server"),
        ("node index.mjs", "MainThread", "index"),
        ("ruby -I lib bin/worker.rb", "ruby", "worker"),
        ("java -Xmx1g -cp a.jar:b.jar com.shop.Orders --x", "java", "com.shop.Orders"),
        ("java -Dx=1 -jar /opt/orders-1.2.jar", "java", "orders-1.2"),
        ("", "gone", "gone"),
        ("", "", ""),
    ],
)
def test_name_is_the_script_of_an_interpreter_or_the_executable(cmdline, comm, expected):
    arguments = cmdline.split() if isinstance(cmdline, str) else cmdline
    assert service_name(arguments, comm, "0::/", {}, 7) == expected


def test_unit_comes_before_script():
    assert service_name(["python3", "orders.py"], "python3", "0::/system.slice/shop.service", {}, 7) == "shop"


@pytest.mark.parametrize("key", ["7", "orders.py", "python3"])
def test_configuration_comes_before_everything(key):
    overrides = {key: "mine"}
    assert service_name(["python3", "orders.py"], "python3", "0::/system.slice/shop.service", overrides, 7) == "mine"
