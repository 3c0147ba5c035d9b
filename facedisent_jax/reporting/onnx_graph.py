"""JAX functions as ONNX models for any batch size: each operation of the traced function becomes ONNX operations.

These are the operations of the networks in `models/`, and a test compares the results. (The package jax2onnx knows many
more, but needs an older Orbax than this project.)
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx
from jax.extend.core import JaxprEqn, Literal
from onnx import helper, numpy_helper

OPSET, IR_VERSION = 18, 9  # of 2022: any ONNX Runtime since 1.14 reads them

MAX_INDEX = np.iinfo(np.int64).max  # as the end of a slice: of any length

Value = np.ndarray | str  # known while exporting, or the name of a tensor of the graph

ONE_TO_ONE = {
    "abs": "Abs",
    "add": "Add",
    "copy": "Identity",
    "div": "Div",
    "eq": "Equal",
    "exp": "Exp",
    "floor": "Floor",
    "ge": "GreaterOrEqual",
    "gt": "Greater",
    "le": "LessOrEqual",
    "log": "Log",
    "logistic": "Sigmoid",
    "lt": "Less",
    "max": "Max",
    "min": "Min",
    "mul": "Mul",
    "neg": "Neg",
    "pow": "Pow",
    "sqrt": "Sqrt",
    "stop_gradient": "Identity",
    "sub": "Sub",
    "tanh": "Tanh",
}
"""JAX's name of an elementwise operation -> ONNX's."""


def to_onnx(
    function: Callable[..., Sequence[Any]],
    inputs: Mapping[str, tuple[int, ...]],
    outputs: Sequence[str],
    about: str,
) -> onnx.ModelProto:
    """The ONNX model of a function of float32 arrays.

    inputs:  name and shape of each array, without the batch axis, which comes first and may have any length.
    outputs: a name for each array that the function returns.
    about:   a sentence that the model carries.

    Raises NotImplementedError for an operation that is not translated.
    """
    (batch,) = jax.export.symbolic_shape("batch")
    shapes = [jax.ShapeDtypeStruct((batch, *shape), jnp.float32) for shape in inputs.values()]
    graph = _Graph(batch, next(iter(inputs)))
    closed: Any = jax.make_jaxpr(function)(*shapes)
    results = graph.evaluate(closed, list(inputs))
    for name, value in zip(outputs, results, strict=True):
        graph.nodes.append(helper.make_node("Identity", [graph.tensor(value)], [name]))

    def describe(name: str, shape: Sequence[Any]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", *shape[1:]])

    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "facedisent_jax",
            [describe(name, shape.shape) for name, shape in zip(inputs, shapes, strict=True)],
            [describe(name, aval.shape) for name, aval in zip(outputs, closed.out_avals, strict=True)],
            graph.initializers,
        ),
        producer_name="facedisent-jax",
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        doc_string=about,
    )
    onnx.checker.check_model(model)
    return model


class _Graph:
    """The nodes of an ONNX graph while they are added.

    batch: the symbolic batch size. first_input: name of the tensor whose first axis has this size.
    """

    def __init__(self, batch: Any, first_input: str):
        self.batch, self.first_input = batch, first_input
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._batch_size = ""

    def add(self, op: str, *inputs: Value, outputs: int = 1, **attributes: Any) -> Any:
        """Add a node. Returns the name of its output, or a list of several."""
        names = [f"t{len(self.nodes)}_{k}" for k in range(outputs)]
        self.nodes.append(helper.make_node(op, [self.tensor(value) for value in inputs], names, **attributes))
        return names if outputs > 1 else names[0]

    def tensor(self, value: Value) -> str:
        """The name of a tensor with this value."""
        if isinstance(value, str):
            return value
        name = f"c{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def sizes(self, shape: Sequence[Any]) -> Value:
        """A shape as a tensor [axes] of int64. Sizes may be multiples of the batch size."""
        parts: list[Value] = []
        for size in shape:
            if isinstance(size, int):
                parts.append(np.array([size]))
                continue
            if not self._batch_size:
                self._batch_size = self.add("Shape", self.first_input, start=0, end=1)
            parts.append(self.add("Mul", self._batch_size, np.array([int(size // self.batch)])))
        if all(isinstance(part, np.ndarray) for part in parts):
            return np.array(shape, np.int64)
        return self.add("Concat", *parts, axis=0)

    def reshape(self, value: Value, shape: Sequence[Any]) -> Value:
        """At most one size may depend on the batch size."""
        sizes = [size if isinstance(size, int) else -1 for size in shape]
        if isinstance(value, np.ndarray):
            return np.reshape(value, sizes)
        return self.add("Reshape", value, np.array(sizes, np.int64))

    def broadcast(self, value: Value, from_shape: Sequence[Any], shape: Sequence[Any], axes: Sequence[int]) -> Value:
        """axes: where the axes of the value stand in the new shape."""
        sizes: list[Any] = [1] * len(shape)
        for axis, size in zip(axes, from_shape, strict=True):
            sizes[axis] = size
        value = self.reshape(value, sizes)
        if sizes == list(shape):
            return value
        # Expand leaves an axis where 1 is asked for, so that sizes that are there already need not be known.
        return self.add("Expand", value, self.sizes([1 if a == b else b for a, b in zip(sizes, shape, strict=True)]))

    def evaluate(self, closed: Any, inputs: Sequence[Value]) -> list[Value]:
        """Add the operations of a traced function (a closed jaxpr). Returns its outputs."""
        jaxpr = closed.jaxpr
        values: dict[Any, Value] = dict(zip(jaxpr.constvars, map(np.asarray, closed.consts), strict=True))
        values |= dict(zip(jaxpr.invars, inputs, strict=True))

        def read(atom: Any) -> Value:
            if isinstance(atom, Literal):
                return np.asarray(atom.val, atom.aval.dtype)  # type: ignore[attr-defined]
            return values[atom]

        for equation in jaxpr.eqns:
            results = self._translate(equation, [read(atom) for atom in equation.invars])
            values |= dict(zip(equation.outvars, results, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def _translate(self, equation: JaxprEqn, x: list[Value]) -> Sequence[Value]:
        """The outputs of one operation."""
        name, params = equation.primitive.name, equation.params
        for key in ("jaxpr", "call_jaxpr"):  # jit, custom_jvp_call, custom_vjp_call
            if key in params and name != "scan":
                return self.evaluate(params[key], x)
        if name == "platform_index":  # of `jax.lax.platform_dependent`: the default comes last
            return [np.array(len(params["platforms"]) - 1)]
        if name == "cond" and isinstance(x[0], np.ndarray):
            return self.evaluate(params["branches"][int(x[0])], x[1:])
        if name == "scan" and _is_fori_loop(equation):
            carry_count = len(equation.outvars)
            consts, carry = x[:-carry_count], x[-carry_count:]
            for _ in range(params["length"]):
                carry = self.evaluate(params["jaxpr"], [*consts, *carry])
            return carry
        outputs: list[Any] = [variable.aval for variable in equation.outvars]
        is_static = all(isinstance(size, int) for output in outputs for size in output.shape)
        if is_static and all(0 in output.shape for output in outputs):  # of a padding of no width
            return [np.zeros(output.shape, output.dtype) for output in outputs]
        if is_static and name != "dim_as_value" and all(isinstance(value, np.ndarray) for value in x):
            results = equation.primitive.bind(*map(jnp.asarray, x), **params)
            return [np.asarray(value) for value in (results if equation.primitive.multiple_results else [results])]
        if name in ONE_TO_ONE:
            return [self.add(ONE_TO_ONE[name], *x)]
        method = getattr(self, f"_{name}", None)
        if method is None:
            raise NotImplementedError(f"ONNX export knows no operation {name}.")
        result = method(equation, *x)
        return result if isinstance(result, list) else [result]

    # One method for each other operation, by JAX's name: (equation, *inputs) -> output, or a list of several.

    def _broadcast_in_dim(self, equation, x, *_):
        shapes = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
        return self.broadcast(x, *shapes, equation.params["broadcast_dimensions"])

    def _clamp(self, equation, low, x, high):
        return self.add("Min", self.add("Max", x, low), high)

    def _concatenate(self, equation, *x):
        parts = [value for value in x if isinstance(value, str) or value.size]
        return self.add("Concat", *parts, axis=equation.params["dimension"])

    def _conv_general_dilated(self, equation, x, kernel):
        p, numbers = equation.params, equation.params["dimension_numbers"]
        if set(p["lhs_dilation"]) != {1} or p["batch_group_count"] != 1:
            raise NotImplementedError("ONNX export knows no convolution with a dilated input.")
        x = self.add("Transpose", x, perm=numbers.lhs_spec)
        kernel = kernel.transpose(numbers.rhs_spec)
        low, high = zip(*p["padding"], strict=True)
        y = self.add(
            "Conv",
            x,
            kernel,
            pads=[*low, *high],
            strides=p["window_strides"],
            dilations=p["rhs_dilation"],
            group=p["feature_group_count"],
        )
        return self.add("Transpose", y, perm=np.argsort(numbers.out_spec).tolist())

    def _convert_element_type(self, equation, x):
        return self.add("Cast", x, to=helper.np_dtype_to_tensor_dtype(np.dtype(equation.params["new_dtype"])))

    def _dim_as_value(self, equation):
        size = self.reshape(self.sizes([equation.params["dim"]]), [])
        return self.add("Cast", size, to=helper.np_dtype_to_tensor_dtype(equation.outvars[0].aval.dtype))

    def _dot_general(self, equation, a, b):
        (sum_a, sum_b), (batch_a, batch_b) = equation.params["dimension_numbers"]
        rank_a, rank_b = (variable.aval.ndim for variable in equation.invars)
        if isinstance(b, np.ndarray) and rank_b == 2 and not batch_b and tuple(sum_a) == (rank_a - 1,):
            return self.add("MatMul", a, b if sum_b[0] == 0 else b.T)
        letters = iter("abcdefghijklmnopqrstuvwxyz")
        axes_a, axes_b = [next(letters) for _ in range(rank_a)], [next(letters) for _ in range(rank_b)]
        for i, j in zip((*batch_a, *sum_a), (*batch_b, *sum_b), strict=True):
            axes_b[j] = axes_a[i]
        free_a = [axes_a[k] for k in range(rank_a) if k not in (*batch_a, *sum_a)]
        free_b = [axes_b[k] for k in range(rank_b) if k not in (*batch_b, *sum_b)]
        out = [*(axes_a[k] for k in batch_a), *free_a, *free_b]
        return self.add("Einsum", a, b, equation=f"{''.join(axes_a)},{''.join(axes_b)}->{''.join(out)}")

    def _gather(self, equation, x, index):
        """Rows of a matrix, or of each matrix of a batch, by their numbers; or one slice at a place that is known."""
        numbers, sizes = equation.params["dimension_numbers"], equation.params["slice_sizes"]
        if isinstance(index, np.ndarray) and index.ndim == 1:
            axes, index = np.array(numbers.start_index_map), index.astype(np.int64)
            part = self.add("Slice", x, index, index + [sizes[k] for k in axes], axes)
            return self.reshape(part, equation.outvars[0].aval.shape)
        whole = equation.invars[0].aval.shape
        if sizes[1:] == whole[1:] and tuple(numbers.collapsed_slice_dims) == (0,):
            return self.add("Gather", x, self.reshape(index, equation.invars[1].aval.shape[:-1]), axis=0)
        batched = tuple(numbers.operand_batching_dims) == tuple(numbers.start_indices_batching_dims) == (0,)
        if batched and tuple(numbers.start_index_map) == (1,) and tuple(sizes[:2]) == (1, 1) and sizes[2:] == whole[2:]:
            return self.add("GatherND", x, self.add("Cast", index, to=onnx.TensorProto.INT64), batch_dims=1)
        raise NotImplementedError(
            "ONNX export knows no gather but that of whole rows, in a batch or not, or of one slice."
        )

    def _integer_pow(self, equation, x):
        power = equation.params["y"]
        return self.add("Mul", x, x) if power == 2 else self.add("Pow", x, np.array(power, np.float32))

    def _iota(self, equation):
        shape, axis = equation.outvars[0].aval.shape, equation.params["dimension"]
        length = self.reshape(self.sizes([shape[axis]]), [])
        steps = self.add("Range", np.array(0), length, np.array(1))
        steps = self.add("Cast", steps, to=helper.np_dtype_to_tensor_dtype(equation.outvars[0].aval.dtype))
        return self.broadcast(steps, [shape[axis]], shape, [axis])

    def _pad(self, equation, x, value):
        low, high, interior = zip(*equation.params["padding_config"], strict=True)
        if any(interior) or min(*low, *high) < 0:
            raise NotImplementedError("ONNX export knows no padding but that at the edges.")
        return self.add("Pad", x, np.array([*low, *high]), value)

    def _reduce_sum(self, equation, x):
        return self.add("ReduceSum", x, np.array(equation.params["axes"]), keepdims=0)

    def _reshape(self, equation, x):
        return self.reshape(x, equation.outvars[0].aval.shape)

    _squeeze = _reshape

    def _rev(self, equation, x):
        axes = np.array(equation.params["dimensions"])
        backwards = np.full(len(axes), -1)
        return self.add("Slice", x, backwards, -MAX_INDEX * np.ones(len(axes), np.int64), axes, backwards)

    def _rsqrt(self, equation, x):
        return self.add("Reciprocal", self.add("Sqrt", x))

    def _scatter(self, equation, x, index, update):
        """One slice at a place that is known, written over."""
        numbers, shape = equation.params["dimension_numbers"], list(equation.invars[0].aval.shape)
        axes = numbers.scatter_dims_to_operand_dims
        if not isinstance(index, np.ndarray) or index.size != 1 or axes != numbers.inserted_window_dims:
            raise NotImplementedError("ONNX export knows no scatter but that to one slice.")
        (axis,) = axes
        is_written = (np.arange(shape[axis]) == index).reshape([-1 if k == axis else 1 for k in range(len(shape))])
        shape[axis] = 1
        return self.add("Where", is_written, self.reshape(update, shape), x)

    def _select_n(self, equation, which, *cases):
        return self.add("Where", which, cases[1], cases[0])

    def _slice(self, equation, x):
        starts, ends, steps = (equation.params[key] for key in ("start_indices", "limit_indices", "strides"))
        places = []  # axis, start, end and step where it is not the whole axis
        for axis, size in enumerate(equation.invars[0].aval.shape):
            start, end, step = starts[axis], ends[axis], steps[axis] if steps else 1
            if start != 0 or end != size or step != 1:
                from_end = not isinstance(start, int)  # batch - 1 is -1
                places.append((axis, start - size if from_end else start, MAX_INDEX if end == size else end, step))
        axes, starts, ends, steps = (np.array(values) for values in zip(*places, strict=True))
        return self.add("Slice", x, starts, ends, axes, steps)

    def _split(self, equation, x):
        sizes = equation.params["sizes"]
        return self.add("Split", x, np.array(sizes), outputs=len(sizes), axis=equation.params["axis"])

    def _square(self, equation, x):
        return self.add("Mul", x, x)

    def _stack(self, equation, *x):
        axis, shape = equation.params["axis"], list(equation.outvars[0].aval.shape)
        shape[axis] = 1
        return self.add("Concat", *(self.reshape(value, shape) for value in x), axis=axis)

    def _transpose(self, equation, x):
        return self.add("Transpose", x, perm=equation.params["permutation"])


def _is_fori_loop(scan: JaxprEqn) -> bool:
    """Whether a scan has neither slices as inputs nor a stack as output: then its shapes are those of its body."""
    functions: list[Any] = [scan, scan.params["jaxpr"].jaxpr]
    shapes, body_shapes = ([v.aval.shape for v in (*f.invars, *f.outvars)] for f in functions)
    return shapes == body_shapes
