import pytest

from node_cli.passwords import without_passwords


@pytest.mark.parametrize(
    ("text", "shown"),
    {
        "postgresql://me:hunter2@h/x is down": "postgresql://me:***@h/x is down",
        "cannot read a=mysql+pymysql://me:hun=hunter2@h/x: no": "cannot read a=mysql+pymysql://me:***@h/x: no",
        "'postgresql://me:a@hunter2/@h/x'": "'postgresql://me:***@h/x'",
        "postgresql://h:1/x?user=me&password=hunter2&a=b": "postgresql://h:1/x?user=me&password=***&a=b",
        "postgresql://h/x?sslPassword=hunter2": "postgresql://h/x?sslPassword=***",
        "postgresql://:hunter2@h/x, postgresql://you:hunter2@g/x": "postgresql://:***@h/x, postgresql://you:***@g/x",
        "sqlite:///studies.db at 10:30 by me@home": "sqlite:///studies.db at 10:30 by me@home",
        "http://127.0.0.1:80/data/": "http://127.0.0.1:80/data/",
    }.items(),
)
def test_a_password_is_not_shown(text, shown):
    assert without_passwords(text) == shown


def test_nor_a_part_of_it_that_a_driver_tells():
    address = "postgresql://me:abc@hunter2@127.0.0.1/x"
    told = without_passwords('could not translate host name "hunter2@127.0.0.1"', address)
    assert told == 'could not translate host name "***@127.0.0.1"'
