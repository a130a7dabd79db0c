CREATE TABLE instructions ( query VARCHAR(200) NOT NULL, sentence TEXT NOT NULL, PRIMARY KEY (query), FOREIGN KEY(query) REFERENCES queries (id) )
