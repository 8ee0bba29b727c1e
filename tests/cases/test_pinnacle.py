"""The problems of PINNacle that are not shipped can be said in a case file all the same."""

import pytest
from case_files import written

import cases

TRAIN = "\ntrain: {steps: 1, optimizer: {type: gauss_newton}}\n"
BIG = [(x, y) for x in (-4, 4) for y in (-9, -3, 3, 9)] + [(0, -6), (0, 0), (0, 6)]
SMALL = [(x, y) for x in (-3.2, 3.2) for y in (-6, 0, 6)]
DISC = "    - {{type: disc, centre: {{x: {}, y: {}}}, radius: {}, name: {}}}"
HOLES = [DISC.format(x, y, 1, "big") for x, y in BIG] + [
    DISC.format(x, y, 0.4, "small") for x, y in SMALL
]
PROBLEMS = {
    "Heat 2-D Varying": """
unknowns: [u]
equations: {balance: "u_t - (1 + exp(sin(5*x)*cos(7*y)))*(u_xx + u_yy)
    - 200*sin(pi*x)*sin(5*pi*y)*sin(pi*t)"}
domain: {x: [0, 1], y: [0, 1], t: [0, 5]}
conditions:
  start: {type: initial, values: {u: 0}, hard: true}
  sides: {type: dirichlet, at: {x: [0, 1], y: [0, 1]}, values: {u: 0}, hard: true}
""",
    "Heat 2-D Complex": """
unknowns: [u]
equations: {balance: u_t - laplacian(u)}
shape:
  type: difference
  parts:
    - {type: box, sides: {x: [-8, 8], y: [-12, 12]}, name: sides}
"""
    + "\n".join(HOLES)
    + """
domain: {t: [0, 3]}
conditions:
  start: {type: initial, values: {u: 0}, hard: true}
  big: {type: robin, at: {boundary: big}, values: {u: 5}}
  small: {type: robin, at: {boundary: small}, values: {u: 1}}
  sides: {type: robin, at: {boundary: sides}, values: {u: 0.1}}
""",
    "Heat 2-D Long Time": """
unknowns: [u]
equations: {balance: "u_t - 0.001*(u_xx + u_yy)
    - 5*sin(u^2)*(1 + 2*sin(pi*t/4))*sin(4*pi*x)*sin(2*pi*y)"}
domain: {x: [0, 1], y: [0, 1], t: [0, 100]}
conditions:
  start: {type: initial, values: {u: sin(4*pi*x)*sin(3*pi*y)}, hard: true}
  sides: {type: dirichlet, at: {x: [0, 1], y: [0, 1]}, values: {u: 0}, hard: true}
""",
    "NS 2-D Back Step": """
unknowns: [u, v, p]
equations:
  momentum x: u*u_x + v*u_y + p_x - 0.01*(u_xx + u_yy)
  momentum y: u*v_x + v*v_y + p_y - 0.01*(v_xx + v_yy)
  continuity: u_x + v_y
shape:
  type: polygon
  vertices: [[0, 0], [4, 0], [4, 2], [2, 2], [2, 1], [0, 1]]
  edges: [wall, outlet, wall, wall, wall, inlet]
conditions:
  inlet: {type: dirichlet, at: {boundary: inlet}, values: {u: 4*y*(1 - y), v: 0}}
  walls: {type: dirichlet, at: {boundary: wall}, values: {u: 0, v: 0}}
  outlet: {type: dirichlet, at: {boundary: outlet}, values: {p: 0}}
""",
    "NS 2-D Long Time": """
unknowns: [u, v, p]
equations:
  momentum x: u_t + u*u_x + v*u_y + p_x - 0.01*(u_xx + u_yy)
  momentum y: v_t + u*v_x + v*v_y + p_y - 0.01*(v_xx + v_yy) + sin(pi*x)*sin(pi*y)*sin(pi*t)
  continuity: u_x + v_y
domain: {x: [0, 2], y: [0, 1], t: [0, 5]}
conditions:
  start: {type: initial, values: {u: 0, v: 0}}
  walls: {type: dirichlet, at: {y: [0, 1]}, values: {u: 0, v: 0}}
  inlet:
    type: dirichlet
    at: {x: 0}
    values: {u: sin(pi*y)*(sin(pi*t) + sin(3*pi*t) + sin(5*pi*t)), v: 0}
  outlet: {type: dirichlet, at: {x: 2}, values: {p: 0}}
""",
    "Kuramoto-Sivashinsky": """
unknowns: [u]
parameters: {a: 100/16, b: 100/256, c: 100/65536}
equations: {flame: u_t + a*u*u_x + b*u_xx + c*u_xxxx}
domain: {x: [0, 2*pi], t: [0, 1]}
conditions:
  start: {type: initial, values: {u: cos(x)*(1 + sin(x))}, hard: true}
  wrap: {type: periodic, over: x, hard: true}
""",
    "Gray-Scott": """
unknowns: [u, v]
equations:
  u: u_t - 1e-5*(u_xx + u_yy) - 0.04*(1 - u) + u*v^2
  v: v_t - 5e-6*(v_xx + v_yy) + 0.1*v - u*v^2
domain: {x: [-1, 1], y: [-1, 1], t: [0, 200]}
conditions:
  start:
    type: initial
    values: {u: 1 - exp(-80*((x + 0.05)^2 + (y + 0.02)^2)),
             v: exp(-80*((x - 0.05)^2 + (y - 0.02)^2))}
    hard: true
""",
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_problem_of_pinnacle_is_well_posed(name, tmp_path):
    path = written(tmp_path, PROBLEMS[name].strip() + TRAIN)
    assert cases.load(path).parameter_count() > 0
