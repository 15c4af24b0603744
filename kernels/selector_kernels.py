"""The three selector networks in Triton: device code. `selectors.py` launches it and documents the arguments.

A program computes one network (0 space, 1 layers, 2 scale) for a tile of vertices. In the forward pass the hidden
layers stay in registers: a slab of units of the first is computed at a time and used at once by the second.

Products of float32 matrices run on the bfloat16 tensor cores, with every number as a sum of PARTS bfloat16 numbers:
three hold all 24 bits (six of the nine products are computed, as exact as float32), two hold 16 (three products, errors
of 3e-6). Unlike tf32, bfloat16 operands can be transposed, and go from one product to the next in registers.

Axis letters: V vertices, F features, H hidden units, L layers; FP, HP, LP are padded with zeros. Features are read FM
at a time, MAINS times, then FR (none if 0), because tiles are powers of two and 72 = 64 + 8 is not. Names in capitals
are constants at compile time.
"""

from __future__ import annotations

import triton
import triton.language as tl

from brainkit.kernels import interpreted

EXACT: tl.constexpr = tl.constexpr(3)
# Triton's interpreter multiplies bfloat16 numbers as integers, and truncates where the device rounds: there, parts are
# float32 numbers that bfloat16 can represent.
INTERPRETED: tl.constexpr = tl.constexpr(interpreted())
PART: tl.constexpr = tl.constexpr(tl.float32 if INTERPRETED.value else tl.bfloat16)


@triton.jit
def pack_kernel(
    hidden_weight, second_weight, location_head, layer_head, scale_head, first, second, heads,
    F: tl.constexpr, H: tl.constexpr, L: tl.constexpr, HP: tl.constexpr, LP: tl.constexpr,
    FP: tl.constexpr, FB: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Split ROWS rows of a network's weights into parts: (3, 3, HP, FP), (3, 3, HP, HP) and (3, 3, LP, HP)."""
    network = tl.program_id(1)
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS))[:, None]
    feature = tl.arange(0, FB)[None, :]
    unit = tl.arange(0, HP)[None, :]
    w = tl.load(hidden_weight + (network * H + row) * F + feature, mask=(feature < F) & (row < H), other=0.0)
    _store_parts(first + (network * HP + row) * FP + feature, w, (feature < FP) & (row < HP), 3 * HP * FP)
    w = tl.load(second_weight + (network * H + row) * H + unit, mask=(unit < H) & (row < H), other=0.0)
    _store_parts(second + (network * HP + row) * HP + unit, w, (unit < HP) & (row < HP), 3 * HP * HP)
    head = layer_head
    n_outputs = L
    if network == 0:
        head = location_head
        n_outputs = 2
    elif network == 2:
        head = scale_head
        n_outputs = 1
    w = tl.load(head + row * H + unit, mask=(unit < H) & (row < n_outputs), other=0.0)
    _store_parts(heads + (network * LP + row) * HP + unit, w, (unit < HP) & (row < LP), 3 * LP * HP)


@triton.jit
def _store_parts(place, x, kept, size: tl.constexpr):
    high, middle, low = split(x, 3)
    tl.store(place, high, mask=kept)
    tl.store(place + size, middle, mask=kept)
    tl.store(place + 2 * size, low, mask=kept)


@triton.jit
def forward_kernel(
    features, first, hidden_bias, second, second_bias, heads, locations, layer_weights, scale, V,
    F: tl.constexpr, H: tl.constexpr, L: tl.constexpr, HP: tl.constexpr, LP: tl.constexpr,
    FM: tl.constexpr, MAINS: tl.constexpr, FR: tl.constexpr, BM: tl.constexpr, SLAB: tl.constexpr, OTHERS: tl.constexpr,
):  # fmt: skip
    """The output of one network for one tile of vertices. OTHERS: PARTS for networks 1 and 2."""
    tile = tl.program_id(0)
    network = tl.program_id(1)
    start = tile.to(tl.int64) * BM
    n_rows = tl.minimum(V - tile * BM, BM)
    _z, logits = _tile(
        network, features + start * F, first, hidden_bias, second, second_bias, heads, n_rows,
        F, H, HP, LP, FM, MAINS, FR, BM, SLAB, OTHERS,
    )  # fmt: skip
    row = tl.arange(0, BM)[:, None]
    output = tl.arange(0, LP)[None, :]
    here = row < n_rows
    if network == 0:
        tl.store(locations + start * 2 + row * 2 + output, tanh(logits), mask=here & (output < 2))
    elif network == 1:
        tl.store(layer_weights + start * L + row * L + output, softmax(logits, L), mask=here & (output < L))
    else:
        tl.store(scale + start + row + output, tl.sigmoid(logits), mask=here & (output < 1))


@triton.jit
def recompute_kernel(
    grad_locations, grad_layer_weights, grad_scale, features, first, hidden_bias, second, second_bias, heads,
    entering, logit_grads, begin, V,
    F: tl.constexpr, H: tl.constexpr, L: tl.constexpr, HP: tl.constexpr, LP: tl.constexpr,
    FM: tl.constexpr, MAINS: tl.constexpr, FR: tl.constexpr, BM: tl.constexpr, SLAB: tl.constexpr, CHUNK: tl.constexpr,
    OTHERS: tl.constexpr,
):  # fmt: skip
    """The forward pass again, for a chunk of vertices from `begin`.

    Writes the inputs of the second GELU, (3, CHUNK, HP), and the gradients of the logits, (3, CHUNK, LP).
    """
    tile = tl.program_id(0)
    network = tl.program_id(1)
    start = begin.to(tl.int64) + tile * BM
    n_rows = tl.minimum(V - (begin + tile * BM), BM)
    z, logits = _tile(
        network, features + start * F, first, hidden_bias, second, second_bias, heads, n_rows,
        F, H, HP, LP, FM, MAINS, FR, BM, SLAB, OTHERS,
    )  # fmt: skip
    row = tl.arange(0, BM)[:, None]
    output = tl.arange(0, LP)[None, :]
    place = network * CHUNK + tile * BM + row
    tl.store(entering + place * HP + tl.arange(0, HP)[None, :], z)
    here = row < n_rows
    if network == 0:
        grad = tl.load(grad_locations + start * 2 + row * 2 + output, mask=here & (output < 2), other=0.0)
        t = tanh(logits)
        grad = grad * (1.0 - t * t)
    elif network == 1:
        grad = tl.load(grad_layer_weights + start * L + row * L + output, mask=here & (output < L), other=0.0)
        p = softmax(logits, L)
        grad = p * (grad - tl.sum(grad * p, 1)[:, None])
    else:
        grad = tl.load(grad_scale + start + row + output, mask=here & (output < 1), other=0.0)
        s = tl.sigmoid(logits)
        grad = grad * s * (1.0 - s)
    tl.store(logit_grads + place * LP + output, grad)


@triton.jit
def signal_kernel(
    entering, logit_grads, location_head, layer_head, scale_head, signals, sums, resumed,
    H: tl.constexpr, L: tl.constexpr, HP: tl.constexpr, LP: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    CHUNK: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """Back through the heads, for ROWS vertices and COLUMNS units: gradients of the inputs of the second GELU.

    They go to `signals` (PARTS, 3, CHUNK, HP). Gradients of the heads and of the second bias are summed over chunks in
    `sums` (3, CHUNK / ROWS, LP + 1, HP), one sum per tile of a chunk. There are few outputs, so they are computed one
    at a time without tensor cores, rather than padded to 16.
    """
    tile = tl.program_id(0)
    network = tl.program_id(1)
    head = layer_head
    n_outputs = L
    if network == 0:
        head = location_head
        n_outputs = 2
    elif network == 2:
        head = scale_head
        n_outputs = 1
    row = network * CHUNK + tile * ROWS + tl.arange(0, ROWS)
    unit = tl.program_id(2) * COLUMNS + tl.arange(0, COLUMNS)
    place = row[:, None] * HP + unit[None, :]
    sums += (network * (CHUNK // ROWS) + tile) * (LP + 1) * HP + unit
    z = tl.load(entering + place)
    a = gelu(z)
    signal = tl.zeros((ROWS, COLUMNS), tl.float32)
    for output in range(n_outputs):
        grad = tl.load(logit_grads + row * LP + output)[:, None]
        signal += grad * tl.load(head + output * H + unit, mask=unit < H, other=0.0)[None, :]
        _add_to(sums + output * HP, tl.sum(grad * a, 0), resumed)
    signal *= gelu_slope(z)
    _add_to(sums + LP * HP, tl.sum(signal, 0), resumed)
    high, middle, low = split(signal, PARTS)
    tl.store(signals + place, high)
    tl.store(signals + 3 * CHUNK * HP + place, middle)
    if PARTS == 3:
        tl.store(signals + 6 * CHUNK * HP + place, low)


@triton.jit
def _add_to(pointer, x, resumed):
    """Store x, or add it to the stored values."""
    if resumed > 0:
        x += tl.load(pointer)
    tl.store(pointer, x)


@triton.jit
def second_weight_kernel(
    features, first, hidden_bias, signals, sums, begin, V, resumed,
    F: tl.constexpr, H: tl.constexpr, HP: tl.constexpr, FM: tl.constexpr, MAINS: tl.constexpr, FR: tl.constexpr,
    BM: tl.constexpr, UNITS: tl.constexpr, CHUNK: tl.constexpr, SLOTS: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """The gradient of the second weight, transposed.

    A program sums UNITS units of the first layer over every SLOTS-th tile of the chunk, in registers. Matrices are
    transposed here (units, vertices), so that operands of the next product are in the layout of the tensor cores. Sums
    are (3, SLOTS, HP, HP).
    """
    slot = tl.program_id(0)
    network = tl.program_id(2)
    row = tl.arange(0, BM)
    unit = tl.program_id(1) * UNITS + tl.arange(0, UNITS)
    all_units = tl.arange(0, HP)
    first += network * HP * (FM * MAINS + FR)
    hidden_bias += network * H
    signals += network * CHUNK * HP
    total = tl.zeros((UNITS, HP), tl.float32)
    count = tl.minimum(V - begin, CHUNK)
    for tile in range(slot, tl.cdiv(count, BM), SLOTS):
        n_rows = tl.minimum(count - tile * BM, BM)
        here = features + (begin.to(tl.int64) + tile * BM) * F
        h = _first_layer(here, first, hidden_bias, unit, n_rows, F, H, HP, FM, MAINS, FR, BM, PARTS)
        a0, a1, a2 = split(gelu(h), PARTS)
        s0, s1, s2 = load_parts(signals + tile * BM * HP, row, all_units, HP, 3 * CHUNK * HP, PARTS)
        total = product(a0, a1, a2, s0, s1, s2, total, PARTS)
    owned = (network * SLOTS + slot) * HP + unit
    _add_to(sums + owned[:, None] * HP + all_units[None, :], total, resumed)


@triton.jit
def first_weight_kernel(
    features, first, hidden_bias, second, signals, sums, bias_sums, begin, V, resumed,
    F: tl.constexpr, H: tl.constexpr, HP: tl.constexpr, FM: tl.constexpr, MAINS: tl.constexpr, FR: tl.constexpr,
    BM: tl.constexpr, UNITS: tl.constexpr, CHUNK: tl.constexpr, SLOTS: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """Gradients of the first weight and bias: back through the first hidden layer. Like `second_weight_kernel`.

    A program also covers FM features, and those with the first FM also the remaining FR. Sums are (3, SLOTS, HP, FP).
    """
    slot = tl.program_id(0)
    part = tl.program_id(1)
    network = tl.program_id(2)
    FP: tl.constexpr = FM * MAINS + FR
    FRP: tl.constexpr = FR if FR > 0 else 16
    OWNERS: tl.constexpr = HP // UNITS
    row = tl.arange(0, BM)
    unit = (part % OWNERS) * UNITS + tl.arange(0, UNITS)
    all_units = tl.arange(0, HP)
    feature = (part // OWNERS) * FM + tl.arange(0, FM)
    rest = MAINS * FM + tl.arange(0, FRP)
    first += network * HP * FP
    hidden_bias += network * H
    second += network * HP * HP
    signals += network * CHUNK * HP
    total = tl.zeros((UNITS, FM), tl.float32)
    total_rest = tl.zeros((UNITS, FRP), tl.float32)
    total_bias = tl.zeros((UNITS,), tl.float32)
    count = tl.minimum(V - begin, CHUNK)
    for tile in range(slot, tl.cdiv(count, BM), SLOTS):
        n_rows = tl.minimum(count - tile * BM, BM)
        here = features + (begin.to(tl.int64) + tile * BM) * F
        h = _first_layer(here, first, hidden_bias, unit, n_rows, F, H, HP, FM, MAINS, FR, BM, PARTS)
        s0, s1, s2 = load_parts(signals + tile * BM * HP, row, all_units, HP, 3 * CHUNK * HP, PARTS)
        w0, w1, w2 = load_parts(second, all_units, unit, HP, 3 * HP * HP, PARTS)
        signal = product(
            tl.trans(w0), tl.trans(w1), tl.trans(w2), tl.trans(s0), tl.trans(s1), tl.trans(s2),
            tl.zeros((UNITS, BM), tl.float32), PARTS,
        )  # fmt: skip
        signal *= gelu_slope(h)
        total_bias += tl.sum(signal, 1)
        e0, e1, e2 = split(signal, PARTS)
        x0, x1, x2 = load_features(here, row, n_rows, feature, F, PARTS)
        total = product(e0, e1, e2, x0, x1, x2, total, PARTS)
        if FR > 0:
            r0, r1, r2 = load_features(here, row, n_rows, rest, F, PARTS)
            total_rest = product(e0, e1, e2, r0, r1, r2, total_rest, PARTS)
    owned = (network * SLOTS + slot) * HP + unit
    _add_to(sums + owned[:, None] * FP + feature[None, :], total, resumed)
    if part < OWNERS:
        _add_to(bias_sums + owned, total_bias, resumed)
        if FR > 0:
            _add_to(sums + owned[:, None] * FP + rest[None, :], total_rest, resumed)


@triton.jit
def _first_layer(
    features, first, bias, unit, n_rows,
    F: tl.constexpr, H: tl.constexpr, HP: tl.constexpr, FM: tl.constexpr, MAINS: tl.constexpr, FR: tl.constexpr,
    BM: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """Inputs of the first GELU of the units `unit`, transposed: (units, BM)."""
    FP: tl.constexpr = FM * MAINS + FR
    row = tl.arange(0, BM)
    z = tl.zeros((unit.shape[0], BM), tl.float32)
    if FR > 0:
        rest = MAINS * FM + tl.arange(0, FR)
        r0, r1, r2 = load_features(features, row, n_rows, rest, F, PARTS)
        z = _transposed_product(first, unit, rest, r0, r1, r2, z, FP, 3 * HP * FP, PARTS)
    for main in tl.static_range(MAINS):
        feature = main * FM + tl.arange(0, FM)
        x0, x1, x2 = load_features(features, row, n_rows, feature, F, PARTS)
        z = _transposed_product(first, unit, feature, x0, x1, x2, z, FP, 3 * HP * FP, PARTS)
    return z + tl.load(bias + unit, mask=unit < H, other=0.0)[:, None]


@triton.jit
def _transposed_product(
    weight, row, column, x0, x1, x2, z, stride: tl.constexpr, size: tl.constexpr, PARTS: tl.constexpr
):  # fmt: skip
    w0, w1, w2 = load_parts(weight, row, column, stride, size, PARTS)
    return product(w0, w1, w2, tl.trans(x0), tl.trans(x1), tl.trans(x2), z, PARTS)


@triton.jit
def sum_kernel(
    head_sums, second_sums, first_sums, bias_sums, grad_hidden_weight, grad_hidden_bias, grad_second_weight,
    grad_second_bias, grad_location_head, grad_layer_head, grad_scale_head, places,
    F: tl.constexpr, H: tl.constexpr, L: tl.constexpr, HP: tl.constexpr, LP: tl.constexpr, FP: tl.constexpr,
    FB: tl.constexpr, PLACES: tl.constexpr, SECOND_SLOTS: tl.constexpr, FIRST_SLOTS: tl.constexpr,
):  # fmt: skip
    """Add the programs' sums in a fixed order: one row of every gradient of one network."""
    row = tl.program_id(0)
    network = tl.program_id(1)
    unit = tl.arange(0, HP)
    if row < H:
        feature = tl.arange(0, FB)
        one = tl.arange(0, 1)
        start = network * SECOND_SLOTS * HP + row
        by_unit = _add(second_sums + start * HP, unit, SECOND_SLOTS, HP * HP, HP, HP, SECOND_SLOTS)
        tl.store(grad_second_weight + (network * H + unit) * H + row, by_unit, mask=unit < H)
        start = network * FIRST_SLOTS * HP + row
        by_feature = _add(first_sums + start * FP, feature, FIRST_SLOTS, HP * FP, FP, FB, FIRST_SLOTS)
        tl.store(grad_hidden_weight + (network * H + row) * F + feature, by_feature, mask=feature < F)
        bias = _add(bias_sums + start, one, FIRST_SLOTS, HP, 1, 1, FIRST_SLOTS)
        tl.store(grad_hidden_bias + network * H + row + one, bias)
    if row <= LP:
        start = network * PLACES * (LP + 1) + row
        total = _add(head_sums + start * HP, unit, places, (LP + 1) * HP, HP, HP, PLACES)
        if row == LP:
            tl.store(grad_second_bias + network * H + unit, total, mask=unit < H)
        else:
            grad_head = grad_layer_head
            n_outputs = L
            if network == 0:
                grad_head = grad_location_head
                n_outputs = 2
            elif network == 2:
                grad_head = grad_scale_head
                n_outputs = 1
            tl.store(grad_head + row * H + unit, total, mask=(unit < H) & (row < n_outputs))


@triton.jit
def _add(
    pointer, column, rows, stride: tl.constexpr, columns: tl.constexpr, WIDTH: tl.constexpr, MOST: tl.constexpr
):  # fmt: skip
    """The sum of `rows` (at most MOST) rows, loaded 32 at a time and added in a fixed order."""
    total = tl.zeros((WIDTH,), tl.float32)
    for start in range(0, MOST, 32):
        row = start + tl.arange(0, 32)
        kept = (row < rows)[:, None] & (column < columns)[None, :]
        total += tl.sum(tl.load(pointer + row[:, None] * stride + column[None, :], mask=kept, other=0.0), 0)
    return total


@triton.jit
def _tile(
    network, features, first, hidden_bias, second, second_bias, heads, n_rows,
    F: tl.constexpr, H: tl.constexpr, HP: tl.constexpr, LP: tl.constexpr, FM: tl.constexpr, MAINS: tl.constexpr,
    FR: tl.constexpr, BM: tl.constexpr, SLAB: tl.constexpr, OTHERS: tl.constexpr,
):  # fmt: skip
    """Inputs of the second GELU (BM, HP) and logits (BM, LP) of one tile of vertices and one network."""
    first += network * HP * (FM * MAINS + FR)
    second += network * HP * HP
    heads += network * LP * HP
    hidden_bias += network * H
    second_bias += network * H
    if OTHERS == EXACT or network == 0:
        z, logits = _network(
            features, first, hidden_bias, second, second_bias, heads, n_rows,
            F, H, HP, LP, FM, MAINS, FR, BM, SLAB, EXACT,
        )  # fmt: skip
    else:
        z, logits = _network(
            features, first, hidden_bias, second, second_bias, heads, n_rows,
            F, H, HP, LP, FM, MAINS, FR, BM, SLAB, OTHERS,
        )  # fmt: skip
    return z, logits


@triton.jit
def _network(
    features, first, hidden_bias, second, second_bias, heads, n_rows,
    F: tl.constexpr, H: tl.constexpr, HP: tl.constexpr, LP: tl.constexpr, FM: tl.constexpr, MAINS: tl.constexpr,
    FR: tl.constexpr, BM: tl.constexpr, SLAB: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    z = _second_layer(
        features, first, hidden_bias, second, second_bias, n_rows, F, H, HP, FM, MAINS, FR, BM, SLAB, PARTS
    )  # fmt: skip
    a0, a1, a2 = split(gelu(z), PARTS)
    zero = tl.zeros((BM, LP), tl.float32)
    return z, _times_transposed(a0, a1, a2, heads, tl.arange(0, LP), tl.arange(0, HP), zero, HP, 3 * LP * HP, PARTS)


@triton.jit
def _second_layer(
    features, first, hidden_bias, second, second_bias, n_rows,
    F: tl.constexpr, H: tl.constexpr, HP: tl.constexpr, FM: tl.constexpr, MAINS: tl.constexpr, FR: tl.constexpr,
    BM: tl.constexpr, SLAB: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """Inputs of the second GELU: (BM, HP). The first layer is computed SLAB units at a time."""
    FP: tl.constexpr = FM * MAINS + FR
    row = tl.arange(0, BM)
    unit = tl.arange(0, HP)
    feature = tl.arange(0, FM)
    x0, x1, x2 = load_features(features, row, n_rows, feature, F, PARTS)
    if FR > 0:
        rest = MAINS * FM + tl.arange(0, FR)
        r0, r1, r2 = load_features(features, row, n_rows, rest, F, PARTS)
    z = tl.zeros((BM, HP), tl.float32)
    for start in range(0, HP, SLAB):
        slab = start + tl.arange(0, SLAB)
        h = tl.zeros((BM, SLAB), tl.float32)
        for m in tl.static_range(1, MAINS):
            more = m * FM + feature
            y0, y1, y2 = load_features(features, row, n_rows, more, F, PARTS)
            h = _times_transposed(y0, y1, y2, first, slab, more, h, FP, 3 * HP * FP, PARTS)
        if FR > 0:
            h = _times_transposed(r0, r1, r2, first, slab, rest, h, FP, 3 * HP * FP, PARTS)
        h = _times_transposed(x0, x1, x2, first, slab, feature, h, FP, 3 * HP * FP, PARTS)
        h += tl.load(hidden_bias + slab, mask=slab < H, other=0.0)[None, :]
        a0, a1, a2 = split(gelu(h), PARTS)
        z = _times_transposed(a0, a1, a2, second, unit, slab, z, HP, 3 * HP * HP, PARTS)
    return z + tl.load(second_bias + unit, mask=unit < H, other=0.0)[None, :]


@triton.jit
def _times_transposed(
    a0, a1, a2, weight, row, column, z, stride: tl.constexpr, size: tl.constexpr, PARTS: tl.constexpr
):  # fmt: skip
    w0, w1, w2 = load_parts(weight, row, column, stride, size, PARTS)
    return product(a0, a1, a2, tl.trans(w0), tl.trans(w1), tl.trans(w2), z, PARTS)


@triton.jit
def load_features(features, row, n_rows, feature, F: tl.constexpr, PARTS: tl.constexpr):
    kept = (row < n_rows)[:, None] & (feature < F)[None, :]
    return split(tl.load(features + row[:, None] * F + feature[None, :], mask=kept, other=0.0), PARTS)


@triton.jit
def load_parts(
    pointer, row, column, stride: tl.constexpr, size: tl.constexpr, PARTS: tl.constexpr
):  # fmt: skip
    """A tile of a matrix of parts; `size` is the offset between parts."""
    place = row[:, None] * stride + column[None, :]
    high = tl.load(pointer + place).to(PART)
    middle = tl.load(pointer + size + place).to(PART)
    low = middle
    if PARTS == 3:
        low = tl.load(pointer + 2 * size + place).to(PART)
    return high, middle, low


@triton.jit
def split(x, PARTS: tl.constexpr):
    """float32 as a sum of bfloat16 numbers, largest first; with two parts the third is not used."""
    high = _rounded(x)
    rest = x - high.to(tl.float32)
    middle = _rounded(rest)
    low = middle
    if PARTS == 3:
        low = _rounded(rest - middle.to(tl.float32))
    return high, middle, low


@triton.jit
def _rounded(x):
    if INTERPRETED:
        bits = x.to(tl.int32, bitcast=True)
        x = ((bits + 0x7FFF + ((bits >> 16) & 1)) & -0x10000).to(tl.float32, bitcast=True)
    return x.to(PART)


@triton.jit
def product(a0, a1, a2, b0, b1, b2, z, PARTS: tl.constexpr):
    """z + a @ b, small terms first."""
    if PARTS == 3:
        z = tl.dot(a2, b0, z)
        z = tl.dot(a0, b2, z)
        z = tl.dot(a1, b1, z)
    z = tl.dot(a1, b0, z)
    z = tl.dot(a0, b1, z)
    return tl.dot(a0, b0, z)


@triton.jit
def gelu(x):
    """x times the normal distribution function of x: max(x, 0) minus |x| times the tail beyond |x|. NaN stays NaN."""
    distance, tail, _bell = _tail(x)
    return tl.maximum(x, 0.0, propagate_nan=tl.PropagateNan.ALL) - distance * tail


@triton.jit
def gelu_slope(x):
    _distance, tail, bell = _tail(x)
    return tl.where(x < 0, tail, 1.0 - tail) + x * (bell * 0.3989422804014327)


@triton.jit
def _tail(x):
    """|x| clamped to 8, the probability of a normal variable beyond it, and exp(-x^2 / 2).

    The probability is a polynomial times the exponential, which the slope needs anyway: a minimax fit with an error of
    1e-7 in |x| times it, with half the instructions of the library's erf and exp.
    """
    distance = tl.minimum(tl.abs(x), 8.0)
    bell = tl.exp2(distance * distance * -0.7213475204444817)
    p = 1.1553919217563858e-06 * distance - 2.6800966937726286e-05
    p = p * distance + 0.0002777393573904386
    p = p * distance - 0.001725759044640871
    p = p * distance + 0.007345866492033005
    p = p * distance - 0.023452546807331123
    p = p * distance + 0.06040663944940099
    p = p * distance - 0.132146997960653
    p = p * distance + 0.2498272869961642
    p = p * distance - 0.3989282540790495
    p = p * distance + 0.49999981190247844
    return distance, p * bell, bell


@triton.jit
def tanh(x):
    """tanh, accurate for small x, and where exp would overflow."""
    square = x * x
    series = x * (1.0 + square * (-0.3333333333 + square * (0.1333333333 - square * 0.0539682540)))
    e = tl.exp(-2.0 * tl.abs(x))
    far = (1.0 - e) / (1.0 + e)
    return tl.where(square < 0.01, series, tl.where(x < 0, -far, far))


@triton.jit
def softmax(logits, L: tl.constexpr):
    logits = tl.where((tl.arange(0, logits.shape[1]) < L)[None, :], logits, -float("inf"))
    p = tl.exp(logits - tl.max(logits, 1)[:, None])
    return p / tl.sum(p, 1)[:, None]
