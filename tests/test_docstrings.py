"""Whoever calls a public function of these rooms is told the shape of every array that goes in or comes out.

Read from the source: annotations say what is an array, the docstring has to hold a shape such as (P, H, W) or (N,).
Weights by their names, `Mapping[str, Tensor]` or `dict[str, Tensor]`, have as many shapes as names and need none.
A type alias that states its shape in a docstring of its own (`ImageArray`) speaks for all that are annotated with it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import specialsam

SOURCE = Path(specialsam.__file__).parent
ROOMS = sorted(path.name for path in SOURCE.iterdir() if (path / "__init__.py").exists())

ARRAYS = {"NDArray", "ArrayLike", "ndarray", "Tensor"}
"""Names that an annotation, or the type alias behind it, holds where a value is an array."""
WEIGHTS = {"Mapping[str, Tensor]", "dict[str, Tensor]", "State"}
"""Types of the weights of a model."""
PLACES = re.compile(r"d?[xy]\d?")
"""What a point or a box is made of: (x, y) says what its numbers are and not how many of them there are."""
SIZE = re.compile(r"\.\.\.|(\d+|[A-Z][A-Z_]*|[a-z]|height|width|side|count)( [*+/-] (\d+|\w+))*")
"""One side of a shape: a number, a letter, a constant, one of four words, a small sum of such, or any sides."""


def has_shape(text: str) -> bool:
    """Whether a text holds a shape: sides within parentheses, with a comma, that are no coordinates."""
    for inside in re.findall(r"\(([^()]*,[^()]*)\)", re.sub(r"\[, ?\w+\]", "", text)):
        sides = [side.strip() for side in inside.split(",") if side.strip()]
        if all(SIZE.fullmatch(side) for side in sides) and not all(PLACES.fullmatch(side) for side in sides):
            return True
    return False


def names_in(node: ast.AST) -> set[str]:
    """Every name and attribute in an expression, annotations written as text included."""
    return {
        n.id if isinstance(n, ast.Name) else n.attr for n in ast.walk(node) if isinstance(n, ast.Name | ast.Attribute)
    }


def aliases(paths: list[Path]) -> dict[str, bool]:
    """Type aliases of arrays in these files by name, and whether each states its shape (everywhere it is defined)."""
    found: dict[str, bool] = {}
    for path in paths:
        body = ast.parse(path.read_text()).body
        for node, after in zip(body, [*body[1:], ast.Pass()], strict=True):
            if not (isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)):
                continue
            name = node.targets[0].id
            if name[0].isupper() and names_in(node.value) & (ARRAYS | set(found)) and is_type(node.value):
                said = (
                    after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else ""
                )
                found[name] = found.get(name, True) and has_shape(str(said))
    return found


def is_type(node: ast.expr) -> bool:
    """Whether an expression is a type: a name, a subscript of names, or a union of them; no call, no number."""
    return not any(isinstance(n, ast.Call | ast.Dict | ast.List | ast.Lambda | ast.Constant) for n in ast.walk(node))


def documented(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, str, list[ast.expr]]]:
    """(name, docstring, annotations) of each public function, method, and class with annotated fields."""
    for node in body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            every = [arg.annotation for arg in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]]
            stated = [part for part in [*every, node.returns] if part is not None]
            yield prefix + node.name, ast.get_docstring(node) or "", stated
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            fields = [part.annotation for part in node.body if isinstance(part, ast.AnnAssign)]
            yield prefix + node.name, ast.get_docstring(node) or "", fields
            yield from documented(node.body, f"{prefix}{node.name}.")


def without_shape(room: Path, known: dict[str, bool]) -> list[str]:
    """Public names whose arrays have no shape, neither in their docstring nor in that of their type's alias."""
    out = []
    for path in sorted(room.rglob("*.py")):
        own = known | aliases([path])
        for name, text, types in documented(ast.parse(path.read_text()).body):
            arrays = [
                part for part in types if names_in(part) & (ARRAYS | set(own)) and ast.unparse(part) not in WEIGHTS
            ]
            stated = all(all(own.get(each, each not in ARRAYS) for each in names_in(part)) for part in arrays)
            if arrays and not stated and not has_shape(text):
                out.append(f"{path.relative_to(room.parent)}: {name}")
    return out


@pytest.fixture(scope="module")
def known() -> dict[str, bool]:
    return aliases([SOURCE / "core" / "geometry.py"])


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_array_has_a_shape(room: str, known: dict[str, bool]) -> None:
    assert without_shape(SOURCE / room, known) == []


def test_the_rule_finds_what_it_should(tmp_path: Path, known: dict[str, bool]) -> None:
    """Arrays of every kind without a shape are named; stated, private and other values are not."""
    (tmp_path / "some.py").write_text(
        '''
Plane = npt.NDArray[np.uint8]
"""A plane uint8 (h, w)."""
Bare = npt.NDArray[np.uint8]

def stated(mask: BoolArray) -> float:
    """Of a bool (H, W) mask."""
def by_alias(image: ImageArray, plane: Plane | None) -> list[ImageArray]:
    """Both aliases state their shapes."""
def vector(values: np.ndarray) -> None:
    """Of values (N,)."""
def weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """By name."""
def no_array(count: int, size: tuple[int, int]) -> str:
    """Of numbers."""
def _private(mask: BoolArray) -> None: ...
def silent(mask: BoolArray) -> float:
    """Of a mask (see there, or not)."""
def point(mask: Bare) -> None:
    """A random pixel (x, y)."""
def answer(count: int) -> tuple[int, torch.Tensor]: ...
class Kept:
    """A mask and no shape."""
    mask: BoolArray | None
    def made(self, plane: Plane, other: Bare) -> None:
        """One alias states its shape, the other does not."""
'''
    )
    found = [line.split(": ")[1] for line in without_shape(tmp_path, known)]
    assert found == ["silent", "point", "answer", "Kept", "Kept.made"]


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("bool (P, H, W)", True),
        ("(N,)", True),
        ("(H, W[, 3]) and more", True),
        ("(2 * REACH + 1, 4)", True),
        ("(..., 2)", True),
        ("a point (x, y)", False),
        ("a shift (dx, dy) or a box (x0, y0, x1, y1)", False),
        ("pairs (map, truth)", False),
        ("(see there)", False),
        ("a mask (its own, of course)", False),
    ],
)
def test_what_a_shape_is(text: str, holds: bool) -> None:
    assert has_shape(text) == holds
