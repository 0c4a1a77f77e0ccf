"""Makes the files of older releases that the tests open, with the rows and the answers of the day.

    python -m venv old
    old/bin/pip install scikit-learn==1.3.2 "numpy<2" "skops<0.11" xgboost==1.7.6 lightgbm==3.3.5
    old/bin/python make.py

The files of 1.5.2 come out of an environment with scikit-learn 1.5.2, skops and NumPy 2.
"""

from importlib.util import find_spec
from pathlib import Path

import joblib
import numpy as np
import sklearn
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import AdaBoostClassifier, GradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression

HERE = Path(__file__).parent
VERSION = sklearn.__version__

generator = np.random.default_rng(0)
rows = generator.normal(size=(40, 3)).round(3)
target = (rows[:, 0] * rows[:, 1] > 0).astype(int)
np.save(HERE / "rows.npy", rows)
forest = RandomForestClassifier(2, max_depth=2, random_state=0)
for name, model in {
    "ada": AdaBoostClassifier(n_estimators=3),
    "calibrated": CalibratedClassifierCV(forest, cv=2),
    "gradient": GradientBoostingClassifier(n_estimators=2, max_depth=1, random_state=0),
    "linear": LogisticRegression(),
}.items():
    model.fit(rows, target)
    joblib.dump(model, HERE / f"{name}-{VERSION}.joblib", compress=3)
    np.save(HERE / f"{name}-{VERSION}.npy", model.predict_proba(rows))
if find_spec("skops"):
    from skops.io import dump

    dump(model, HERE / f"linear-{VERSION}.skops")
if find_spec("xgboost"):
    from lightgbm import LGBMRegressor
    from xgboost import XGBRegressor, __version__

    boosted = XGBRegressor(n_estimators=2, max_depth=2).fit(rows, target)
    boosted.save_model(HERE / f"xgboost-{__version__}.json")
    boosted.save_model(HERE / f"xgboost-{__version__}.ubj")
    joblib.dump(boosted, HERE / f"xgboost-{__version__}.joblib", compress=3)
    np.save(HERE / f"xgboost-{__version__}.npy", boosted.predict(rows))
    light = LGBMRegressor(n_estimators=2, num_leaves=3, min_child_samples=5).fit(rows, target)
    light.booster_.save_model(HERE / "lightgbm-3.3.5.txt")
    np.save(HERE / "lightgbm-3.3.5.npy", light.predict(rows))
