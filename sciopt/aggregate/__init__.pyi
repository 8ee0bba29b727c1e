from ._aggregator import AbstractAggregator as AbstractAggregator
from ._aggregator import AbstractWeighting as AbstractWeighting
from ._aggregator import combine as combine
from ._aggregator import gramian as gramian
from ._mean import Mean as Mean
