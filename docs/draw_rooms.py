"""Draw the rooms of the code and what each imports, from the code itself; run it to write rooms.svg."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path
from xml.sax.saxutils import escape

PACKAGE = "persona_leakage"
SOURCE = Path(__file__).parents[1] / "src" / PACKAGE
PICTURE = Path(__file__).with_name("rooms.svg")
ENTRIES = ("__init__", "__main__", "cli", "hooks", "pipeline_registry", "settings")  # where Kedro and people come in
WIDTH, HEIGHT, ACROSS, DOWN = 140, 36, 36, 64


def room_of(parts: tuple[str, ...]) -> str:
    """Name the room of a module, given its path below the package: a folder, a wing, or a file that stands alone."""
    if parts[0] == "experiments" and len(parts) > 1 and (SOURCE / "experiments" / parts[1]).is_dir():
        return "the families' wings"
    return "command line, hooks" if parts[0] in ENTRIES else parts[0]


def read_rooms() -> dict[str, set[str]]:
    """Read every module: room → rooms that it imports, inside functions too."""
    imports: dict[str, set[str]] = {}
    for file in sorted(SOURCE.rglob("*.py")):
        below = file.relative_to(SOURCE)
        room = room_of((*below.parent.parts, below.stem))
        found = imports.setdefault(room, set())
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            for name in names:
                first, *rest = name.split(".")
                if first == PACKAGE and rest:
                    found.add(room_of(tuple(rest)))
    return {room: rooms - {room} for room, rooms in imports.items()}


def draw() -> str:
    """Draw the rooms as SVG: an arrow leads to what a room imports, and a room stands above everything that it imports."""
    imports = read_rooms()
    level: dict[str, int] = {}
    for room in TopologicalSorter(imports).static_order():
        level[room] = 1 + max((level[other] for other in imports[room]), default=-1)
    floors = [sorted(room for room, at in level.items() if at == floor) for floor in range(max(level.values()) + 1)]
    across = max(len(floor) for floor in floors) * (WIDTH + ACROSS) + 3 * ACROSS
    height = len(floors) * (HEIGHT + DOWN) - DOWN + 2 * ACROSS
    place: dict[str, tuple[float, float]] = {}
    for number, floor in enumerate(floors):
        # over the middle of what they import, so that fewer arrows cross
        floor.sort(key=lambda room: sum(place[other][0] for other in imports[room]) / max(1, len(imports[room])))
        start = (across - len(floor) * (WIDTH + ACROSS) + ACROSS) / 2 + (number % 2 * 2 - 1) * ACROSS / 2
        for column, room in enumerate(floor):
            place[room] = (start + column * (WIDTH + ACROSS), height - ACROSS - HEIGHT - number * (HEIGHT + DOWN))
    shapes = []
    for room, rooms in sorted(imports.items()):
        for other in sorted(rooms):
            x, y = place[room][0] + WIDTH / 2, place[room][1] + HEIGHT
            to_x, to_y = place[other][0] + WIDTH / 2, place[other][1]
            shapes.append(f'<path d="M{x:g} {y:g} L{to_x:g} {to_y:g}" marker-end="url(#end)"/>')
    for room, (x, y) in sorted(place.items()):
        shapes.append(f'<rect x="{x:g}" y="{y:g}" width="{WIDTH}" height="{HEIGHT}" rx="5"/>')
        shapes.append(f'<text x="{x + WIDTH / 2:g}" y="{y + HEIGHT / 2 + 4:g}">{escape(room)}</text>')
    style = "path{stroke:#8a8a8a;fill:none} rect{fill:#eef3f8;stroke:#3b6ea8} text{text-anchor:middle;font:12px sans-serif}"
    arrow = '<marker id="end" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    arrow += '<path d="M0 0L8 4L0 8"/></marker>'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {across} {height}" width="{across}" height="{height}">'
    ground = f'<rect width="{across}" height="{height}" style="fill:#fff;stroke:none"/>'
    return "\n".join([head, f"<style>{style}</style><defs>{arrow}</defs>{ground}", *shapes, "</svg>"]) + "\n"


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
