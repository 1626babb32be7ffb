"""Graphs as lines of text that can be compared from one pass to the next."""

from __future__ import annotations

from collections.abc import Iterator

from detc.ir import Graph, GraphPrinter, Node, Value, print_graph


def comes_from(node: Node, module: str | None) -> bool:
    """Whether a node comes from the module of that path, or from inside it. None stands for the whole model."""
    return module is None or node.source == module or node.source.startswith(f"{module}.")


def graph_lines(graph: Graph, module: str | None = None) -> Iterator[str]:
    """The graph as text, line by line; with `module` only the nodes of that part, and how many stand in between."""
    if module is None:
        yield from print_graph(graph).splitlines()
        return
    printer = GraphPrinter(graph)
    yield f"graph {graph.name} (level={graph.level}) {{"
    left_out = 0
    for node in graph:
        if not comes_from(node, module):
            left_out += 1
            continue
        if left_out:
            yield f"  # ... {left_out} nodes"
        left_out = 0
        yield f"  {printer.node(node)}"
    if left_out:
        yield f"  # ... {left_out} nodes"
    yield "}"


class StableLines:
    """Prints the stages of one graph. A value keeps the name that it is first printed with, so that nothing seems
    changed that is not.

    Attributes:
        names: each value seen so far -> its name.
    """

    def __init__(self) -> None:
        self.names: dict[Value, str] = {}
        self._taken: set[str] = set()

    def lines(self, graph: Graph, module: str | None = None) -> dict[object, str]:
        """The line of each part of the graph: "level", its inputs (values), its nodes, ("output", name).

        With `module`, only the nodes of that part of the model.
        """
        printer = self.printer(graph)
        lines: dict[object, str] = {}
        if module is None:
            lines["level"] = f"level={graph.level}"
            for value in graph.inputs:
                lines[value] = f"input {printer.value(value)}: {value.type}"
        for node in graph:
            if comes_from(node, module):
                lines[node] = printer.node(node)
        if module is None:
            for name, value in graph.outputs.items():
                lines["output", name] = f"return {name}={printer.value(value)}"
        return lines

    def printer(self, graph: Graph) -> GraphPrinter:
        """A printer of the graph that uses these names."""
        printer = GraphPrinter(graph)
        for value, name in printer.names.items():
            if value not in self.names:
                self.names[value] = self._fresh(name)
        printer.names = self.names
        return printer

    def _fresh(self, name: str) -> str:
        fresh, number = name, len(self._taken)
        while fresh in self._taken:
            fresh, number = (str(number) if name.isdigit() else f"{name}_{number}"), number + 1
        self._taken.add(fresh)
        return fresh


def changed_lines(old: dict[object, str], new: dict[object, str]) -> Iterator[str]:
    """Removed lines where they stood, added ones where they stand. Lines are known by what they print."""
    waiting = iter(old)
    for key, line in new.items():
        if key in old:
            for earlier in waiting:
                if earlier not in new:
                    yield f"- {old[earlier]}"
                if earlier == key:
                    break
            if old[key] != line:
                yield f"- {old[key]}"
                yield f"+ {line}"
        else:
            yield f"+ {line}"
    yield from (f"- {old[earlier]}" for earlier in waiting if earlier not in new)
