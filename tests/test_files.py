import pytest

from node_cli.files import write_whole


def test_a_file_is_there_whole_or_not_at_all(tmp_path):
    path = tmp_path / "summary.json"
    write_whole(path, b"old")
    with pytest.raises(TypeError):
        write_whole(path, "text, which a file of bytes refuses half-way")  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    write_whole(path, b"new")
    assert path.read_bytes() == b"new"
