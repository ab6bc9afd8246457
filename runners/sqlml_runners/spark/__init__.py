"""Jobs on Apache Spark: rows stay on the cluster, what comes back is a model like any other."""
