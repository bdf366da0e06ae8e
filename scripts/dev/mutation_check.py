"""Do the tests notice? Change one operation of the code at a time, on a copy of the tree, and see that they fail.

python scripts/dev/mutation_check.py                 # all mutants: ten minutes on 2 CPU cores
python scripts/dev/mutation_check.py project         # those whose name contains the word
python scripts/dev/mutation_check.py --write=FILE    # also the outcome as JSON: {name: whether it was caught}
"""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tqdm import tqdm

from saddlepoint.files import write_json

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("src", "configs", "scripts", "tests", "train.py", "pyproject.toml")

COMPARISONS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq
}  # fmt: skip
ARITHMETIC = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip

# Module under src/saddlepoint, whose tests have its name: what is changed in which function, as operator and index.
MUTANTS = {
    "threat.py": "Linf.random sign 0, Linf.ascend receiver 1, Linf.projection receiver 0, L2.random constant 0, "
    "L2.ascend argument 5, L2.ascend receiver 0, L2.projection receiver 3, Threat.random_point receiver 0, "
    "Linf.projection receiver 1, Threat.scaled compute 0, Threat.contains compute 0, Threat.contains compute 1",
    "losses.py": "Margin.__call__ compute 0, Margin.__call__ receiver 3, Divergence.__call__ argument 2",
    "attacks.py": "undisturbed drop 0, undisturbed drop 1, undisturbed receiver 1, PGD.__post_init__ constant 0, "
    "PGD.scaled receiver 1, PGD.ascend argument 3, PGD._signed negate 0, PGD.start negate 0, PGD.__call__ negate 0, "
    "PGD.__call__ compute 0, PGD.__call__ sign 1, PGD._broken negate 0, Targeted._target receiver 1",
    "training/objectives.py": "Adversarial._attack receiver 0, Trades.__call__ compute 1, Trades.__call__ compute 2",
    "training/schedules.py": "Steps.__call__ compare 0, OneCycle.__call__ compute 4, OneCycle.__call__ argument 0",
    "training/trainer.py": "Trainer.fit compare 1, Trainer._step negate 0, Trainer._step compute 0, "
    "Trainer._step drop 0, Trainer._step drop 1, Trainer._record compare 0, Trainer._load drop 2, "
    "Trainer._load drop 3, Trainer._load drop 4, Trainer._load drop 5, parameter_groups constant 0",
    "training/checkpoint.py": "RunDirectory.hold drop 0, RunDirectory.write_state drop 3, "
    "RunDirectory.read_state constant 0, RunDirectory.discard_states drop 0, read_weights negate 1",
    "data.py": "Split.images compute 0, _split slice 0, _digits constant 0, CropFlip.__call__ compute 1, "
    "CropFlip.__call__ constant 5, Batches.next compare 0",
    "files.py": "write_atomically receiver 0",
    "measure/store.py": "measured compare 0",
    "measure/result.py": "interval constant 1",
    "measure/accuracy.py": "evaluate negate 5, evaluate compute 6",
}


def changed(node: ast.AST, operator: str) -> ast.AST | None:
    """The node with the mistake in it; None where the operator does not apply."""
    match operator, node:
        case "negate", ast.IfExp(test, body, orelse):
            return ast.IfExp(ast.UnaryOp(ast.Not(), test), body, orelse)
        case "negate", ast.If(test, body, orelse):
            return ast.If(ast.UnaryOp(ast.Not(), test), body, orelse)
        case "compare", ast.Compare(left, [op], right) if type(op) in COMPARISONS:
            return ast.Compare(left, [COMPARISONS[type(op)]()], right)
        case "compute", ast.BinOp(left, op, right) if type(op) in ARITHMETIC:
            return ast.BinOp(left, ARITHMETIC[type(op)](), right)
        case "sign", ast.UnaryOp(ast.USub() | ast.Invert(), operand):
            return operand
        case "constant", ast.Constant(bool() as value):
            return ast.Constant(not value)
        case "constant", ast.Constant(int() | float() as value):
            return ast.Constant(value + 1)
        case "drop", ast.Expr(ast.Call()):
            return ast.Pass()
        case "slice", ast.Subscript(value, ast.Slice()):
            return value
        case "argument", ast.Call(args=[first, *_]):  # the call becomes its first argument
            return first
        case "receiver", ast.Call(ast.Attribute(value)):  # a method's call becomes its object
            return value
    return None


class Mistake(ast.NodeTransformer):
    """Applies the operator to the place of this index, counted from 0 in the order of the source."""

    def __init__(self, operator: str, index: int) -> None:
        self.operator, self.left, self.what = operator, index, ""

    def visit(self, node: ast.AST) -> ast.AST:
        new = changed(node, self.operator) if self.left >= 0 else None
        if new is not None:
            self.left -= 1
            if self.left < 0:
                lines = [ast.unparse(each).splitlines()[0] for each in (node, ast.fix_missing_locations(new))]
                self.what = " -> ".join(lines)
                return new
        return self.generic_visit(node)


def mutate(source: str, function: str, operator: str, index: int) -> tuple[str, str]:
    """The source with one mistake in the body of `function` (Class.method), and the mistake in words.

    Raises LookupError if there is no such function or place.
    """
    tree = ast.parse(source)
    scope: ast.AST = tree
    for name in function.split("."):
        named = [each for each in ast.iter_child_nodes(scope) if getattr(each, "name", None) == name]
        if not named:
            raise LookupError(f"no function {function}")
        scope = named[-1]
    assert isinstance(scope, ast.FunctionDef)
    mistake = Mistake(operator, index)
    scope.body = [mistake.visit(statement) for statement in scope.body]  # type: ignore[misc]
    if mistake.left >= 0:
        raise LookupError(f"{function} has no place {index} for {operator}")
    return ast.unparse(ast.fix_missing_locations(tree)), mistake.what


def passes(root: Path, module: str) -> bool:
    """Whether the module's tests pass in the tree at `root`; a test that hangs has failed."""
    tests = Path("tests", module).with_name(f"test_{Path(module).name}")
    environment = {**os.environ, "PYTHONPATH": str(root / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", str(tests)]
    try:
        status = subprocess.run(command, cwd=root, env=environment, capture_output=True, timeout=300).returncode
    except subprocess.TimeoutExpired:
        return False
    if status not in (0, 1, 2):  # 1: a test failed, 2: the code cannot even be imported
        raise SystemExit(f"error: pytest {tests} ended with status {status}")
    return status == 0


def main() -> None:
    if {"-h", "--help"} & set(sys.argv):
        print(__doc__)
        return
    words = [argument for argument in sys.argv[1:] if not argument.startswith("--write=")]
    names = [f"{module} {each}" for module, mutants in MUTANTS.items() for each in mutants.split(", ")]
    chosen = [name for name in names if not words or any(word in name for word in words)]
    if not chosen:
        raise SystemExit(f"error: no mutant's name contains {' or '.join(words)}")
    caught: dict[str, bool] = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in COPIED:
            source = ROOT / name
            shutil.copytree(source, root / name) if source.is_dir() else shutil.copy(source, root / name)
        for module in dict.fromkeys(name.split()[0] for name in chosen):
            if not passes(root, module):
                raise SystemExit(f"error: the tests of {module} fail without a mistake; repair that first")
        for name in tqdm(chosen, disable=None, leave=False):
            module, function, operator, index = name.split()
            path = root / "src" / "saddlepoint" / module
            original = path.read_text()
            try:
                mutant, what = mutate(original, function, operator, int(index))
            except LookupError as error:
                raise SystemExit(f"error: {module}: {error.args[0]}; correct MUTANTS") from None
            path.write_text(mutant)
            caught[name] = not passes(root, module)
            path.write_text(original)
            tqdm.write(f"{'caught  ' if caught[name] else 'SURVIVED'}  {name}: {what}")
    survived = [name for name, each in caught.items() if not each]
    print(f"{len(caught)} mutants, {len(survived)} survived" + "".join(f"\n{name}" for name in survived))
    for argument in sys.argv[1:]:
        if argument.startswith("--write="):
            write_json(Path(argument.removeprefix("--write=")), caught)
    sys.exit(1 if survived else 0)


if __name__ == "__main__":
    main()
