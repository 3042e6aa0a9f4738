"""Where tiles and their tokens lie: the arithmetic that the Triton kernels share.

Nothing is looked up. The number of a tile gives its place on the grid; the place times STEPS gives
its first token; a row inside the tile gives its distance from that token by ROWS. Raster and tiled
order differ in STEPS and ROWS only, so inputs in raster order are read in place.

Loaded with the kernels. Legend, tuples with one entry per axis of the canvas, slowest first:
GRID tiles, SEEN tiles that a query tile sees, STEPS tokens between neighbouring tiles, ROWS tokens
between neighbours inside a tile, SIDES tokens of the canvas (less than GRID * TILE where the last
tiles are cut), TILE tokens of a tile.
"""

import triton
import triton.language as tl


@triton.jit
def first_token(number, GRID, STEPS, NDIM: tl.constexpr):
    """First token of the tile with this number."""
    token = 0
    for axis in tl.static_range(NDIM - 1, -1, -1):
        token += number % GRID[axis] * STEPS[axis]
        number = number // GRID[axis]
    return token


@triton.jit
def seen_tile(query_tile, i, GRID, SEEN, STEPS, NDIM: tl.constexpr):
    """The i-th key tile that a query tile sees: its first token and its number."""
    token = 0
    number = 0
    size = 1
    for axis in tl.static_range(NDIM - 1, -1, -1):
        place = query_tile % GRID[axis]
        query_tile = query_tile // GRID[axis]
        start = tl.minimum(tl.maximum(place - SEEN[axis] // 2, 0), GRID[axis] - SEEN[axis])
        key = start + i % SEEN[axis]
        i = i // SEEN[axis]
        token += key * STEPS[axis]
        number += key * size
        size = size * GRID[axis]
    return token, number


@triton.jit
def seeing_range(place, num_tiles, num_seen):
    """First and one past the last query tile of one axis that sees the key tile at `place`."""
    low = tl.where(place < num_seen, 0, place - num_seen + num_seen // 2 + 1)
    high = tl.where(place >= num_tiles - num_seen, num_tiles, place + num_seen // 2 + 1)
    return low, high


@triton.jit
def num_seeing(key_tile, GRID, SEEN, NDIM: tl.constexpr):
    """How many query tiles see a key tile."""
    count = 1
    for axis in tl.static_range(NDIM - 1, -1, -1):
        low, high = seeing_range(key_tile % GRID[axis], GRID[axis], SEEN[axis])
        key_tile = key_tile // GRID[axis]
        count = count * (high - low)
    return count


@triton.jit
def seeing_tile(key_tile, i, GRID, SEEN, STEPS, NDIM: tl.constexpr):
    """The i-th query tile that sees a key tile: its first token and its number."""
    token = 0
    number = 0
    size = 1
    for axis in tl.static_range(NDIM - 1, -1, -1):
        low, high = seeing_range(key_tile % GRID[axis], GRID[axis], SEEN[axis])
        key_tile = key_tile // GRID[axis]
        query = low + i % (high - low)
        i = i // (high - low)
        token += query * STEPS[axis]
        number += query * size
        size = size * GRID[axis]
    return token, number


@triton.jit
def row_tokens(rows, TILE: tl.constexpr, ROWS, NDIM: tl.constexpr):
    """Distance of rows of a tile, a number or a vector, from its first token."""
    tokens = 0
    for axis in tl.static_range(NDIM - 1, 0, -1):
        tokens += rows % TILE[axis] * ROWS[axis]
        rows = rows // TILE[axis]
    return tokens + rows * ROWS[0]


@triton.jit
def block_tokens(
    block, TILE: tl.constexpr, ROWS, NDIM: tl.constexpr, BLOCK: tl.constexpr, SPLIT: tl.constexpr
):
    """Tokens of one block of a tile: a number to add, and a vector ``[BLOCK]``.

    Where a block is a box (SPLIT), the vector is the same for all blocks.
    """
    rows = tl.arange(0, BLOCK)
    if SPLIT:
        return row_tokens(block * BLOCK, TILE, ROWS, NDIM), row_tokens(rows, TILE, ROWS, NDIM)
    else:
        return 0, row_tokens(block * BLOCK + rows, TILE, ROWS, NDIM)


@triton.jit
def rows_exist(
    number,
    block,
    GRID,
    SIDES,
    TILE: tl.constexpr,
    NDIM: tl.constexpr,
    VOLUME: tl.constexpr,
    BLOCK: tl.constexpr,
    CUT: tl.constexpr,
):
    """Which rows of a block are tokens: inside their tile and, where tiles are CUT, the canvas."""
    rows = block * BLOCK + tl.arange(0, BLOCK)
    exist = rows < VOLUME
    if CUT:
        for axis in tl.static_range(NDIM - 1, -1, -1):
            place = number % GRID[axis] * TILE[axis]
            number = number // GRID[axis]
            if axis > 0:
                exist = exist & (place + rows % TILE[axis] < SIDES[axis])
                rows = rows // TILE[axis]
            else:
                exist = exist & (place + rows < SIDES[axis])
    return exist


@triton.jit
def load_rows(base, offsets, exist, D: tl.constexpr, BLOCK_D: tl.constexpr, MASKED: tl.constexpr):
    """``[rows, BLOCK_D]`` from `base` on; zero beyond D, and where a row does not exist."""
    channels = tl.arange(0, BLOCK_D)
    ptrs = base + offsets[:, None] + channels[None, :]
    if MASKED:
        return tl.load(ptrs, mask=exist[:, None] & (channels < D)[None, :], other=0.0)
    elif D < BLOCK_D:
        return tl.load(ptrs, mask=(channels < D)[None, :], other=0.0)
    else:
        return tl.load(ptrs)


@triton.jit
def store_rows(
    base, offsets, exist, x, D: tl.constexpr, BLOCK_D: tl.constexpr, MASKED: tl.constexpr
):
    """Store what `load_rows` would load."""
    channels = tl.arange(0, BLOCK_D)
    ptrs = base + offsets[:, None] + channels[None, :]
    x = x.to(base.dtype.element_ty)
    if MASKED:
        tl.store(ptrs, x, mask=exist[:, None] & (channels < D)[None, :])
    elif D < BLOCK_D:
        tl.store(ptrs, x, mask=(channels < D)[None, :])
    else:
        tl.store(ptrs, x)


@triton.jit
def own_block(
    block,
    canvas_len,
    seq_len,
    GRID,
    STEPS,
    ROWS,
    SIDES,
    TILE: tl.constexpr,
    NDIM: tl.constexpr,
    VOLUME: tl.constexpr,
    BLOCK: tl.constexpr,
    SPLIT: tl.constexpr,
    CUT: tl.constexpr,
    IS_TEXT: tl.constexpr,
):
    """The tokens of a program: its tile, the first token, the others' distance, which exist."""
    BLOCKS: tl.constexpr = (VOLUME + BLOCK - 1) // BLOCK
    if IS_TEXT:
        number = 0
        start = canvas_len + block * BLOCK
        rows = tl.arange(0, BLOCK)
        exist = start + rows < seq_len
    else:
        number = block // BLOCKS
        extra, rows = block_tokens(block % BLOCKS, TILE, ROWS, NDIM, BLOCK, SPLIT)
        start = first_token(number, GRID, STEPS, NDIM) + extra
        exist = rows_exist(number, block % BLOCKS, GRID, SIDES, TILE, NDIM, VOLUME, BLOCK, CUT)
    return number, start.to(tl.int64), rows, exist


@triton.jit
def num_blocks_seen(SEEN, NDIM: tl.constexpr, VOLUME: tl.constexpr, BLOCK: tl.constexpr):
    """Blocks of keys that a query tile sees."""
    count = (VOLUME + BLOCK - 1) // BLOCK
    for axis in tl.static_range(NDIM):
        count = count * SEEN[axis]
    return count


@triton.jit
def load_seen_keys(
    i,
    query_tile,
    k_head,
    v_head,
    k_stride,
    v_stride,
    GRID,
    SEEN,
    STEPS,
    ROWS,
    SIDES,
    TILE: tl.constexpr,
    NDIM: tl.constexpr,
    VOLUME: tl.constexpr,
    CUT: tl.constexpr,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK: tl.constexpr,
    SPLIT: tl.constexpr,
    MASKED: tl.constexpr,
    ALIKE: tl.constexpr,
    OFFSET: tl.constexpr,
):
    """The i-th block of keys that a query tile sees: K and V ``[BLOCK, BLOCK_D]``, which exist.

    ALIKE: K and V have the same stride.
    """
    BLOCKS: tl.constexpr = (VOLUME + BLOCK - 1) // BLOCK
    token, number = seen_tile(query_tile, i // BLOCKS, GRID, SEEN, STEPS, NDIM)
    extra, keys = block_tokens(i % BLOCKS, TILE, ROWS, NDIM, BLOCK, SPLIT)
    exist = rows_exist(number, i % BLOCKS, GRID, SIDES, TILE, NDIM, VOLUME, BLOCK, CUT)
    token = (token + extra).to(tl.int64)
    k_rows = keys.to(OFFSET) * k_stride
    v_rows = k_rows if ALIKE else keys.to(OFFSET) * v_stride
    k = load_rows(k_head + token * k_stride, k_rows, exist, D, BLOCK_D, MASKED)
    v = load_rows(v_head + token * v_stride, v_rows, exist, D, BLOCK_D, MASKED)
    return k, v, exist


@triton.jit
def load_text_keys(
    token,
    seq_len,
    k_head,
    v_head,
    k_stride,
    v_stride,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK: tl.constexpr,
    OFFSET: tl.constexpr,
):
    """Keys of the text from `token` on: as `load_seen_keys`."""
    keys = tl.arange(0, BLOCK)
    exist = token + keys < seq_len
    place = tl.cast(token, tl.int64)
    rows = keys.to(OFFSET)
    k = load_rows(k_head + place * k_stride, rows * k_stride, exist, D, BLOCK_D, True)
    v = load_rows(v_head + place * v_stride, rows * v_stride, exist, D, BLOCK_D, True)
    return k, v, exist
