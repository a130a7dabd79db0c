CREATE TABLE rayrlhf_identity ( identity VARCHAR(32) NOT NULL, PRIMARY KEY (identity) )
