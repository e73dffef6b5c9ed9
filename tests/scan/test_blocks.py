import numpy as np
import pytest

from mmjax.scan.blocks import EmbeddingBlock, chunk_size, chunks, gather, total_rows


def make(rows, d=4):
    start = 0
    made = []
    for n in rows:
        numbers = np.arange(start, start + n, dtype=np.float16)
        text = np.repeat(numbers[:, None], d, axis=1)
        made.append(EmbeddingBlock(text + np.float16(0.5), text, np.ones(n, bool)))
        start += n
    return made


def test_chunks_cover_every_row_once_and_keep_their_shape():
    blocks = make([5, 0, 3, 8])
    assert total_rows(blocks) == 16
    seen = []
    for chunk in chunks(blocks, 3, images=True):
        n = chunk.stop - chunk.start
        assert chunk.text.shape == (3, 4)
        assert chunk.text.dtype == np.float16  # as stored
        assert not np.any(chunk.text[n:])
        np.testing.assert_array_equal(chunk.text[:n, 0], np.arange(chunk.start, chunk.stop))
        np.testing.assert_array_equal(chunk.image[:n], chunk.text[:n] + 0.5)
        seen += range(chunk.start, chunk.stop)
    assert seen == list(range(16))


def test_captions_alone_leave_images_unread():
    assert all(c.image.shape[0] == 0 for c in chunks(make([4]), 3, images=False))


def test_gather_keeps_the_order_asked_for():
    rows = np.array([9, 0, 15, 5, 9])
    image, text = gather(make([5, 0, 3, 8]), rows)
    np.testing.assert_array_equal(text[:, 0], rows)
    np.testing.assert_array_equal(image[:, 0], rows + 0.5)
    assert gather([], rows[:0])[0].shape == (0, 0)


@pytest.mark.parametrize(
    ("rows", "limit", "size"),
    [
        ([], 8192, 256),
        ([5], 8192, 256),
        ([10_000, 7], 8192, 5120),
        ([300], 70, 70),
        ([512], 512, 512),
    ],
)
def test_chunk_size_wastes_little(rows, limit, size):
    assert chunk_size(make(rows, d=1), limit) == size
