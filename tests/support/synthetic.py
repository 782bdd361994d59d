"""Writes a GGUF of any size with random Q8_0 weights, the architecture (qwen3) and tokenizer of the bundled model."""

import pathlib
import random
import struct

F32, Q8_0 = 0, 8
U32, STRING, ARRAY, FLOAT32 = 4, 8, 9, 6
SCALAR_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def number(self, form):
        value = struct.unpack_from("<" + form, self.data, self.at)[0]
        self.at += struct.calcsize("<" + form)
        return value

    def skip_value(self, kind):
        if kind == STRING:
            length = self.number("Q")
            self.at += length
        elif kind == ARRAY:
            element, count = self.number("I"), self.number("Q")
            if element in SCALAR_BYTES:
                self.at += SCALAR_BYTES[element] * count
            else:
                for _ in range(count):
                    self.skip_value(element)
        else:
            self.at += SCALAR_BYTES[kind]

    def text(self):
        length = self.number("Q")
        self.at += length
        return self.data[self.at - length:self.at].decode()


def metadata_of(path):
    """Name -> raw bytes (type and value) of a GGUF's key-value pairs."""
    reader = Reader(pathlib.Path(path).read_bytes())
    reader.at = 8
    reader.number("Q")
    pairs = {}
    for _ in range(reader.number("Q")):
        name, start = reader.text(), reader.at
        reader.skip_value(reader.number("I"))
        pairs[name] = reader.data[start:reader.at]
    return pairs


def text(value):
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def make_model(path, template, *, layers, hidden, feed_forward, heads, kv_heads, head_dim, vocabulary=4096, seed=1):
    """Writes the model and returns the bytes of its tensors. All widths must be multiples of 32."""
    pairs = metadata_of(template)
    for key, value in {"block_count": layers, "embedding_length": hidden, "feed_forward_length": feed_forward,
                       "attention.head_count": heads, "attention.head_count_kv": kv_heads,
                       "attention.key_length": head_dim, "attention.value_length": head_dim}.items():
        pairs["qwen3." + key] = struct.pack("<II", U32, value)
    tensors = [("token_embd.weight", (vocabulary, hidden)), ("output_norm.weight", (hidden,)),
               ("output.weight", (vocabulary, hidden))]
    for layer in range(layers):
        tensors += [(f"blk.{layer}.{name}.weight", shape) for name, shape in (
            ("attn_norm", (hidden,)), ("attn_q", (heads * head_dim, hidden)), ("attn_k", (kv_heads * head_dim, hidden)),
            ("attn_v", (kv_heads * head_dim, hidden)), ("attn_q_norm", (head_dim,)), ("attn_k_norm", (head_dim,)),
            ("attn_output", (hidden, heads * head_dim)), ("ffn_norm", (hidden,)), ("ffn_gate", (feed_forward, hidden)),
            ("ffn_up", (feed_forward, hidden)), ("ffn_down", (hidden, feed_forward)))]

    header = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(pairs))
    header += b"".join(text(name) + raw for name, raw in pairs.items())
    offset, sizes = 0, []
    for name, shape in tensors:
        values = shape[0] * (shape[1] if len(shape) == 2 else 1)
        size = values // 32 * 34 if len(shape) == 2 else values * 4
        header += text(name) + struct.pack("<I", len(shape)) + b"".join(struct.pack("<Q", n) for n in reversed(shape))
        header += struct.pack("<IQ", Q8_0 if len(shape) == 2 else F32, offset)
        sizes.append(size)
        offset += (size + 31) // 32 * 32

    generator = random.Random(seed)
    with open(path, "wb") as out:
        out.write(header + bytes(-len(header) % 32))
        for (_, shape), size in zip(tensors, sizes):
            data = norm_values(generator, shape[0]) if len(shape) == 1 else q8_0_rows(generator, size, shape[1])
            out.write(data + bytes(-size % 32))
    return sum(sizes)


def norm_values(generator, count):
    return struct.pack(f"<{count}f", *(0.8 + 0.4 * generator.random() for _ in range(count)))


def q8_0_rows(generator, size, columns):
    """Random blocks, scaled so that a product keeps the variance of its input. One stretch of random blocks is
    repeated at a prime stride: quick to write, and no two rows are alike."""
    scale = struct.pack("<e", 1.0 / (73.9 * columns ** 0.5))
    blocks = 4093
    stretch = b"".join(scale + generator.randbytes(32) for _ in range(blocks))
    return (stretch * (size // len(stretch) + 1))[:size]
