"""Explicit Runge-Kutta methods as data. A new method is a tableau here and a YAML in `configs/solver`.

A step of length h from (t, y) evaluates the stages k_i = f(t + c_i h, y + h sum_j a_ij k_j) and ends at
y + h sum_i b_i k_i (Hairer, Norsett, Wanner, *Solving Ordinary Differential Equations I*, section II.1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np

Row = tuple[float, ...]
Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, eq=False)  # equal only to itself: to hash all coefficients takes long beside a small solve
class Tableau:
    """The coefficients of one method.

    `a` has a row for each stage but the first; its length is the stage's number, from 0. `b_hat` is the embedded
    solution of another order that the error of a step is measured against. `dense`, which all methods with an error
    have, has a row for each stage: the coefficients of theta, theta^2, ... of its weight in y(t + theta h).
    """

    name: str
    order: int
    a: tuple[Row, ...]
    b: Row
    source: str
    b_hat: Row | None = None
    error_order: int | None = None  # the lower one of the two orders
    dense: tuple[Row, ...] | None = None

    def __post_init__(self) -> None:
        assert [len(row) for row in self.a] == list(range(1, self.num_stages))
        assert self.b_hat is None or len(self.b_hat) == self.num_stages
        assert self.dense is None or len(self.dense) == self.num_stages
        assert (self.b_hat is None) == (self.error_order is None)
        assert self.b_hat is None or self.dense is not None

    @property
    def num_stages(self) -> int:
        """Evaluations of the vector field in a step, if none is shared with the step before."""
        return len(self.b)

    @cached_property
    def c(self) -> Row:
        """The times of the stages; each is the sum of its row."""
        return (0.0, *(_rounded(math.fsum(row)) for row in self.a))

    @cached_property
    def is_fsal(self) -> bool:
        """Whether the last stage is the first one of the next step (first same as last)."""
        return self.num_stages > 1 and self.c[-1] == 1.0 and (*self.a[-1], 0.0) == self.b

    @cached_property
    def error_weights(self) -> Row | None:
        """The error of a step is h sum_i error_weights_i k_i."""
        return None if self.b_hat is None else tuple(b - b_hat for b, b_hat in zip(self.b, self.b_hat, strict=True))

    @cached_property
    def _dense_columns(self) -> Array:
        """`dense` by the power of theta, `(powers, stages)`."""
        return np.array(self.dense, dtype=float).T

    def dense_weights(self, theta: float | Array) -> Array:
        """The weights of the stages in y(t + theta h), 0 <= theta <= 1: `(stages, *theta.shape)`."""
        weights: Array = theta * polynomial(_beside(self._dense_columns, theta), theta)
        return weights

    def dense_slopes(self, theta: float | Array) -> Array:
        """The derivatives of `dense_weights` with respect to theta."""
        powers = np.arange(1.0, len(self._dense_columns) + 1)
        slopes: Array = polynomial(_beside(powers[:, None] * self._dense_columns, theta), theta)
        return slopes


def _rounded(c: float) -> float:
    """The sum of a row of decimals misses a round number by its last digits."""
    return round(c) if abs(c - round(c)) < 1e-12 else c


def _beside(columns: Array, theta: float | Array) -> Array:
    return columns.reshape(*columns.shape, *(1,) * np.ndim(theta))


def polynomial(coefficients: Row | Array, theta: Any) -> Any:
    """The polynomial in theta, a number, an array or a tensor, with these coefficients, from the lowest one on."""
    value: Any = 0.0
    for coefficient in reversed(coefficients):
        value = value * theta + coefficient
    return value


# fmt: off
EULER = Tableau(
    "euler", 1,
    a=(),
    b=(1,),
    source="Euler 1768",
)

MIDPOINT = Tableau(
    "midpoint", 2, error_order=1,
    a=((1/2,),),
    b=(0, 1),
    b_hat=(1, 0),
    dense=((1, -1), (0, 1)),  # order 2
    source="Runge 1895; error against Euler",
)

HEUN = Tableau(
    "heun", 2, error_order=1,
    a=((1,),),
    b=(1/2, 1/2),
    b_hat=(1, 0),
    dense=((1, -1/2), (0, 1/2)),  # order 2
    source="Heun 1900; error against Euler",
)

RALSTON = Tableau(
    "ralston", 2, error_order=1,
    a=((2/3,),),
    b=(1/4, 3/4),
    b_hat=(1, 0),
    dense=((1, -3/4), (0, 3/4)),  # order 2
    source="Ralston 1962; error: Euler",
)

RK4 = Tableau(
    "rk4", 4,
    a=((1/2,), (0, 1/2), (0, 0, 1)),
    b=(1/6, 1/3, 1/3, 1/6),
    source="Kutta 1901, the classic method",
)

RK4_38 = Tableau(
    "rk4_38", 4,
    a=((1/3,), (-1/3, 1), (1, -1, 1)),
    b=(1/8, 3/8, 3/8, 1/8),
    source="Kutta 1901, the 3/8 rule",
)

BOSH3 = Tableau(
    "bosh3", 3, error_order=2,
    a=((1/2,), (0, 3/4), (2/9, 1/3, 4/9)),
    b=(2/9, 1/3, 4/9, 0),
    b_hat=(7/24, 1/4, 1/3, 1/8),
    dense=((1, -4/3, 5/9), (0, 1, -2/3), (0, 4/3, -8/9), (0, -1, 1)),  # cubic Hermite
    source="Bogacki and Shampine 1989, Appl. Math. Lett. 2(4)",
)

DOPRI5 = Tableau(
    "dopri5", 5, error_order=4,
    a=(
        (1/5,),
        (3/40, 9/40),
        (44/45, -56/15, 32/9),
        (19372/6561, -25360/2187, 64448/6561, -212/729),
        (9017/3168, -355/33, 46732/5247, 49/176, -5103/18656),
        (35/384, 0, 500/1113, 125/192, -2187/6784, 11/84),
    ),
    b=(35/384, 0, 500/1113, 125/192, -2187/6784, 11/84, 0),
    b_hat=(5179/57600, 0, 7571/16695, 393/640, -92097/339200, 187/2100, 1/40),
    dense=(  # order 4
        (1, -8048581381/2820520608, 8663915743/2820520608, -12715105075/11282082432),
        (0, 0, 0, 0),
        (0, 131558114200/32700410799, -68118460800/10900136933, 87487479700/32700410799),
        (0, -1754552775/470086768, 14199869525/1410260304, -10690763975/1880347072),
        (0, 127303824393/49829197408, -318862633887/49829197408, 701980252875/199316789632),
        (0, -282668133/205662961, 2019193451/616988883, -1453857185/822651844),
        (0, 40617522/29380423, -110615467/29380423, 69997945/29380423),
    ),
    source="Dormand and Prince 1980, J. Comp. Appl. Math. 6(1); interpolant: Shampine 1986, Math. Comp. 46",
)

_TSIT5_B = (0.09646076681806523, 0.01, 0.4798896504144996, 1.379008574103742, -3.290069515436081, 2.324710524099774, 0)
_TSIT5_ERROR = (0.0017800110522257771, 0.0008164344596567469, -0.007880878010261995, 0.1447110071732629,
    -0.5823571654525552, 0.458082105929187, -1/66)

TSIT5 = Tableau(
    "tsit5", 5, error_order=4,
    a=(
        (0.161,),
        (-0.008480655492356989, 0.335480655492357),
        (2.8971530571054935, -6.359448489975075, 4.3622954328695815),
        (5.325864828439257, -11.748883564062828, 7.4955393428898365, -0.09249506636175525),
        (5.86145544294642, -12.92096931784711, 8.159367898576159, -0.071584973281401, -0.028269050394068383),
        _TSIT5_B[:-1],
    ),
    b=_TSIT5_B,
    b_hat=tuple(b - error for b, error in zip(_TSIT5_B, _TSIT5_ERROR, strict=True)),
    dense=(  # order 4
        (1, -2.763706197274826, 2.9132554618219126, -1.0530884977290216),
        (0, 0.1317, -0.2234, 0.1017),
        (0, 3.9302962368947516, -5.941033872131505, 2.490627285651253),
        (0, -12.411077166933676, 30.33818863028232, -16.548102889244902),
        (0, 37.50931341651104, -88.1789048947664, 47.37952196281928),
        (0, -27.896526289197286, 65.09189467479366, -34.87065786149661),
        (0, 1.5, -4, 2.5),
    ),
    source="Tsitouras 2011, Comput. Math. Appl. 62(2)",
)

_DOPRI8_B = (14005451/335480064, 0, 0, 0, 0, -59238493/1068277825, 181606767/758867731, 561292985/797845732,
    -1041891430/1371343529, 760417239/1151165299, 118820643/751138087, -528747749/2220607170, 1/4, 0)

DOPRI8 = Tableau(
    "dopri8", 8, error_order=7,
    a=(
        (1/18,),
        (1/48, 1/16),
        (1/32, 0, 3/32),
        (5/16, 0, -75/64, 75/64),
        (3/80, 0, 0, 3/16, 3/20),
        (29443841/614563906, 0, 0, 77736538/692538347, -28693883/1125000000, 23124283/1800000000),
        (16016141/946692911, 0, 0, 61564180/158732637, 22789713/633445777, 545815736/2771057229, -180193667/1043307555),
        (39632708/573591083, 0, 0, -433636366/683701615, -421739975/2616292301, 100302831/723423059,
         790204164/839813087, 800635310/3783071287),
        (246121993/1340847787, 0, 0, -37695042795/15268766246, -309121744/1061227803, -12992083/490766935,
         6005943493/2108947869, 393006217/1396673457, 123872331/1001029789),
        (-1028468189/846180014, 0, 0, 8478235783/508512852, 1311729495/1432422823, -10304129995/1701304382,
         -48777925059/3047939560, 15336726248/1032824649, -45442868181/3398467696, 3065993473/597172653),
        (185892177/718116043, 0, 0, -3185094517/667107341, -477755414/1098053517, -703635378/230739211,
         5731566787/1027545527, 5232866602/850066563, -4093664535/808688257, 3962137247/1805957418, 65686358/487910083),
        (403863854/491063109, 0, 0, -5068492393/434740067, -411421997/543043805, 652783627/914296604,
         11173962825/925320556, -13158990841/6184727034, 3936647629/1978049680, -160528059/685178525,
         248638103/1413531060, 0),
        _DOPRI8_B[:-1],
    ),
    b=_DOPRI8_B,
    b_hat=(13451932/455176623, 0, 0, 0, 0, -808719846/976000145, 1757004468/5645159321, 656045339/265891186,
       -3867574721/1518517206, 465885868/322736535, 53011238/667516719, 2/45, 0, 0),
    dense=(  # order 5
        (1, -6.691018173783117, 19.999006933368086, -30.061056828965096, 22.13965049980758, -6.344834939285925),
        (0,) * 6,
        (0,) * 6,
        (0,) * 6,
        (0,) * 6,
        (0, -7.61426580458134, 52.22735327929773, -121.49996277313356, 116.44221495503187, -39.61079198522594),
        (0, 10.728139263040815, -46.89191641810949, 83.1721004639824, -67.14513188259251, 20.37612138087996),
        (0, 0.5526637063700813, -0.18908932250393948, 9.572450755599855, -16.567224352747555, 7.334709882685004),
        (0, 4.21865626256614, -35.707597594622754, 87.84060576772109, -89.99160148472524, 32.8801774352463),
        (0, -0.6627209125350628, 6.27364480832454, -17.4152107770761, 22.623748964852552, -10.15889905264364),
        (0, -1.263678900113249, 10.316088127245871, -28.590328951480377, 32.23623401673687, -12.540126809878995),
        (0, 5.410603789858743, -34.76507698666153, 81.6630950584344, -82.10203154883632, 29.555300148451863),
        (0, -7.032137906794452, 47.74579710782246, -114.93752913770058, 116.26621857911157, -41.792348642439),
        (0, 2.3537586759714406, -19.008209934160973, 50.25583642261798, -53.90207774663881, 20.30069258221036),
    ),
    source="Prince and Dormand 1981, J. Comp. Appl. Math. 7(1), RK8(7)13M; interpolant: Bogacki and Shampine 1990, "
    "Comput. Math. Appl. 20(3)",
)
# fmt: on

TABLEAUS = {
    tableau.name: tableau for tableau in (EULER, MIDPOINT, HEUN, RALSTON, RK4, RK4_38, BOSH3, DOPRI5, TSIT5, DOPRI8)
}
ADAPTIVE_METHODS = tuple(name for name, tableau in TABLEAUS.items() if tableau.b_hat is not None)
