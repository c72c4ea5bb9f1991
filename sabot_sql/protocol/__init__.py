"""What coordinator and agents say to each other: typed messages and how they are written."""
