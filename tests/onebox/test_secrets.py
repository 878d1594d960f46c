"""What onebox draws for itself."""

from onebox.secrets import cluster_id


def test_a_cluster_id_is_no_option_of_kafka_s_tools() -> None:
    drawn = iter(["-Aa", "--a", "b-aa", "c"])
    sizes = []

    def draw(size: int) -> str:
        sizes.append(size)
        return next(drawn)

    assert cluster_id(draw) == b"b-aa"
    assert sizes == [16, 16, 16]
