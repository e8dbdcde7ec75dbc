from node_cli.batch import Batch as Batch
from node_cli.datasets.dataset import Dataset as Dataset
from node_cli.loaded_run import load_run as load_run
from node_cli.models.ode_block import OdeBlock as OdeBlock
from node_cli.tasks.task import Loss as Loss
from node_cli.tasks.task import Task as Task

__version__: str
