"""Where boxes of 128 tokens lie and which see which: what the Hopper kernels share (Gluon).

A box lies inside one tile, so a box of queries sees a product of intervals of boxes. A view
is [X, Y, n1, n2, D], with fewer middle axes where the canvas has fewer: X holds the heads, Y the
slowest axis, and the batch is folded into one of the two.

Legend: counts, seen and per_tile are boxes along each of three axes: in all, in a window, in a
tile. BOX is the tokens of a box along each axis, HALF_BOX those of its half, HALF how far the
second half is from the first; NUM_AXES of the three are axes of the views. A fold is what one batch
adds to X and to Y; sides are the tokens along the canvas's last two axes.
"""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import mbarrier

from ena_kernels.gluon_names import load_box


@gluon.jit
def unit_of(unit, counts, num_heads):
    """Batch, head and box along each axis of a (head, box)."""
    num_boxes = counts[0] * counts[1] * counts[2]
    box = unit % num_boxes
    batch_head = unit // num_boxes
    box_2 = box % counts[2]
    rest = box // counts[2]
    box_1 = rest % counts[1]
    box_0 = rest // counts[1]
    return batch_head // num_heads, batch_head % num_heads, box_0, box_1, box_2


@gluon.jit
def box_number(box_0, box_1, box_2, counts):
    """A box's place in the order of all boxes."""
    return (box_0 * counts[1] + box_1) * counts[2] + box_2


@gluon.jit
def first_seen(box, count, seen, per_tile):
    """First key box that a query box sees along one axis; windows move inside at the border."""
    tile = box // per_tile
    num_seen = seen // per_tile
    last = count // per_tile - num_seen
    return gl.minimum(gl.maximum(tile - num_seen // 2, 0), last) * per_tile


@gluon.jit
def seeing(box, count, seen, per_tile):
    """First query box that sees a key box along one axis, and how many do."""
    tile = box // per_tile
    num_tiles = count // per_tile
    num_seen = seen // per_tile
    low = tile - num_seen + num_seen // 2 + 1
    if tile < num_seen:
        low = 0
    high = tile + num_seen // 2 + 1
    if tile >= num_tiles - num_seen:
        high = num_tiles
    return low * per_tile, (high - low) * per_tile


@gluon.jit
def corner_of(
    batch, head, box_0, box_1, box_2, fold, counts, BOX: gl.constexpr, NUM_AXES: gl.constexpr
):
    """Coordinates of a box in a view; in one of one axis the boxes follow each other."""
    x = batch * fold[0] + head
    if NUM_AXES == 1:
        box = box_number(box_0, box_1, box_2, counts)
        corner = (x, batch * fold[1] + box * BOX[2], 0)
    elif NUM_AXES == 2:
        corner = (x, batch * fold[1] + box_1 * BOX[1], box_2 * BOX[2], 0)
    else:
        corner = (x, batch * fold[1] + box_0 * BOX[0], box_1 * BOX[1], box_2 * BOX[2], 0)
    return corner


@gluon.jit
def half_of(corner, W, HALF: gl.constexpr, NUM_AXES: gl.constexpr):
    """Coordinates of the W-th half of a box, HALF tokens on along each axis."""
    if NUM_AXES == 1:
        moved = (corner[0], corner[1] + W * HALF[2], 0)
    elif NUM_AXES == 2:
        moved = (corner[0], corner[1] + W * HALF[1], corner[2] + W * HALF[2], 0)
    else:
        moved = (
            corner[0],
            corner[1] + W * HALF[0],
            corner[2] + W * HALF[1],
            corner[3] + W * HALF[2],
            0,
        )
    return moved


@gluon.jit
def tokens_of(
    W: gl.constexpr, row, box_0, box_1, box_2, counts, sides,
    BOX: gl.constexpr, HALF: gl.constexpr, HALF_BOX: gl.constexpr, NUM_AXES: gl.constexpr,
):  # fmt: skip
    """Where the rows of the W-th half of a box are on the token axis."""
    if NUM_AXES == 1:
        token = box_number(box_0, box_1, box_2, counts) * 128 + W * 64 + row
    else:
        row_2 = row % HALF_BOX[2]
        row_1 = row // HALF_BOX[2] % HALF_BOX[1]
        row_0 = row // (HALF_BOX[1] * HALF_BOX[2])
        token_0 = box_0 * BOX[0] + W * HALF[0] + row_0
        token_1 = box_1 * BOX[1] + W * HALF[1] + row_1
        token = (token_0 * sides[0] + token_1) * sides[1] + box_2 * BOX[2] + W * HALF[2] + row_2
    return token


@gluon.jit
def load_seen_keys(
    step, batch, key_head, box_0, box_1, box_2, descriptors, buffers, barriers, folds,
    counts, seen, per_tile,
    BOX: gl.constexpr, HALF: gl.constexpr, NUM_AXES: gl.constexpr, STAGES: gl.constexpr,
    ROWS: gl.constexpr, TOGETHER: gl.constexpr,
):  # fmt: skip
    """K and V of every box that a query box sees, ROWS tokens at a time; the next free step.

    A step waits until what was loaded STAGES steps before has been used. TOGETHER: K and V share
    their barriers, the first two.
    """
    k_desc, v_desc = descriptors
    k_smem, v_smem = buffers
    k_full, k_empty, v_full, v_empty = barriers
    k_fold, v_fold = folds
    PARTS: gl.constexpr = 128 // ROWS
    first_0 = first_seen(box_0, counts[0], seen[0], per_tile[0])
    first_1 = first_seen(box_1, counts[1], seen[1], per_tile[1])
    first_2 = first_seen(box_2, counts[2], seen[2], per_tile[2])
    for i in range(seen[0] * seen[1] * seen[2] * PARTS):
        j = i // PARTS
        key_0 = first_0 + j // seen[2] // seen[1]
        key_1 = first_1 + j // seen[2] % seen[1]
        key_2 = first_2 + j % seen[2]
        k_corner = corner_of(batch, key_head, key_0, key_1, key_2, k_fold, counts, BOX, NUM_AXES)
        v_corner = corner_of(batch, key_head, key_0, key_1, key_2, v_fold, counts, BOX, NUM_AXES)
        if PARTS == 2:
            k_corner = half_of(k_corner, i % 2, HALF, NUM_AXES)
            v_corner = half_of(v_corner, i % 2, HALF, NUM_AXES)
        stage = step % STAGES
        phase = ((step // STAGES) & 1) ^ 1
        mbarrier.wait(k_empty.index(stage), phase)
        if TOGETHER:
            mbarrier.expect(k_full.index(stage), k_desc.block_type.nbytes * 2)
            load_box(k_desc, k_corner, k_full.index(stage), k_smem.index(stage))
            load_box(v_desc, v_corner, k_full.index(stage), v_smem.index(stage))
        else:
            mbarrier.expect(k_full.index(stage), k_desc.block_type.nbytes)
            load_box(k_desc, k_corner, k_full.index(stage), k_smem.index(stage))
            mbarrier.wait(v_empty.index(stage), phase)
            mbarrier.expect(v_full.index(stage), v_desc.block_type.nbytes)
            load_box(v_desc, v_corner, v_full.index(stage), v_smem.index(stage))
        step += 1
    return step
