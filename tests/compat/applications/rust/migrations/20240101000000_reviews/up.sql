CREATE TABLE reviews (user_id bigint NOT NULL, id bigint NOT NULL, body text, PRIMARY KEY (user_id, id));
