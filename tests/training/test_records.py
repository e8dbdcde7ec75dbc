from node_cli.training.records import epoch_line


def test_the_line_of_an_epoch_names_the_first_metrics_of_training_alone():
    values = {"epoch": 3, "train/loss": 0.5, **{f"train/{name}": 1.0 for name in "abcdefghij"}, "val/loss": 0.25}
    assert epoch_line(values, "loss", 9, is_best=True) == (
        "epoch 3/9  train/loss 0.5000  train/a 1.0000  train/b 1.0000  train/c 1.0000  train/d 1.0000  train/e 1.0000"
        "  train/f 1.0000  train/g 1.0000  val/loss 0.2500  best so far"
    )
